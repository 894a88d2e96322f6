"Are the notebooks clean, and is fashion_vae/ what they export? Exits 1 and names the files that are not."

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def main() -> int:
    with TemporaryDirectory() as folder:
        copy = Path(folder) / ROOT.name
        for name in ("nbs", "fashion_vae"):
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            )
        for name in ("settings.ini", "pyproject.toml"):
            shutil.copy(ROOT / name, copy)
        for command in ("nbdev_clean", "nbdev_export"):
            subprocess.run([command], cwd=copy, check=True, env=os.environ | {"PATH": PATH})
        made = [p for folder in ("nbs", "fashion_vae") for p in sorted((copy / folder).glob("*.*"))]
        differ = [
            str(p.relative_to(copy))
            for p in made
            if p.read_bytes() != (ROOT / p.relative_to(copy)).read_bytes()
        ]
    if differ:
        print(f"not clean or not in sync: {', '.join(differ)}; run `make sync`", file=sys.stderr)
    return bool(differ)


if __name__ == "__main__":
    sys.exit(main())
