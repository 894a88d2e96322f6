"Without --soak: the same twentieth of the attacks."

import zlib

PART = 20
REPORTS = "test_the_counts_of_the_attacks"


def pytest_collection_modifyitems(config, items):
    if config.getoption("--soak") or config.option.keyword:
        return
    left_out = [item for item in items if item.path.name == "test_attacks.py" and not is_tried(item.name)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def is_tried(name: str) -> bool:
    return name.startswith(REPORTS) or zlib.crc32(name.encode()) % PART == 0
