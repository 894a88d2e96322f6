"""What the attacks are made of: a count for each family, limits of time and of file size, hostile texts and files."""

import hashlib
import io
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections import defaultdict
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_vae.lib.files import InputError, to_json

ROOT = Path(__file__).parents[2]
COUNTS = defaultdict(lambda: {"tried": 0, "held": 0})  # family -> tries


def attack(family: str, seconds: float = 60):
    "Decorator: count a test in its family, and end it with an error if it takes too long. A skip is no try."

    def decorate(test):
        @wraps(test)
        def counted(*given, **named):
            try:
                with warnings.catch_warnings(), in_time(seconds):
                    warnings.simplefilter("ignore")
                    test(*given, **named)
            except pytest.skip.Exception:
                raise
            except BaseException:
                COUNTS[family]["tried"] += 1
                raise
            COUNTS[family]["tried"] += 1
            COUNTS[family]["held"] += 1

        return counted

    return decorate


class Hangs(AssertionError):
    "Something waits for what never comes."


@contextmanager
def in_time(seconds: float):
    "Interrupt what takes longer."

    def stop(*_):
        raise Hangs(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    earlier, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, earlier)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def full_disk(limit: int):  # bytes that a file may have
    "As if a disk had no more room for large files."
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@contextmanager
def little_memory(mib: int = 1024):
    "As if no more than that were free."
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (mib << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def in_memory(gib: float, code: str, *given, seconds: float = 60) -> subprocess.CompletedProcess:
    "Run a program that may have so much memory."

    def shrink():
        resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30), int(gib * 2**30)))

    command = [sys.executable, "-c", code, *map(str, given)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.run(
        command, preexec_fn=shrink, capture_output=True, text=True, cwd=ROOT, env=env, timeout=seconds
    )


def is_one_sentence(message: str, most: int = 2000) -> bool:
    "Can a message be shown on a terminal, in one line?"
    return bool(message) and message.isprintable() and len(message) <= most


def refused(call, *given, names: str = "", **named) -> str:  # the message
    "See that a call ends with an `InputError` in one line that names the value."
    with pytest.raises(InputError) as caught:
        call(*given, **named)
    message = str(caught.value)
    assert is_one_sentence(message), message[:300]
    assert names in message, message[:300]
    return message


def files_below(folder: Path) -> dict[str, bytes]:
    "Every regular file, without locks."
    files = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and "lock" not in p.name)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


# Texts

TEXTS = {
    "command": "$(touch pwned)",
    "backticks": "`touch pwned`",
    "semicolon": "; touch pwned;",
    "quotes": "'; touch pwned; '",
    "double quotes": '"; touch pwned; "',
    "pipe": "a|touch pwned",
    "and": "a && touch pwned",
    "variable": "${HOME}",
    "dollars": "$$x$",
    "braces": "{run}{{x}}{0}",
    "regex": "(.*[a-z]+)?",
    "line": "a\nb",
    "carriage return": "a\rb",
    "tab": "a\tb",
    "escape": "\x1b[31mred\x1b[0m",
    "right to left": "\u202egnp.exe",
    "zero width": "a\u200bb",
    "line separator": "a\u2028b\u0085c",
    "300 letters": "x" * 300,
    "dashes": "--rf",
    "dots": "..",
    "up": "../../up",
    "absolute": "/etc/passwd",
    "windows": "C:\\x\\..\\y",
    "percent": "%s%n%d",
    "hash": "a # b",
    "quote": "a'b",
    "backslash": "a\\",
    "HTML": "<img src=x onerror=alert(1)>",
    "script": "--><script>alert(1)</script>",
    "table": "a|b",
    "maths": r"$\frac{$",
    "MathJax": r"\(x\) \[y\] \begin{align}z\end{align}",
    "link": "[a](javascript:alert(1))",
    "entity": "&lt;b&gt;&#x41;",
    "Chinese": "服装 👗",
    "Arabic": "فستان",
    "list": "1. a",
    "heading": "# a",
    "rule": "---",
    "address": "www.example.org https://example.org a@example.org",
}
NOT_TEXT = {"zero byte": "a\0b", "surrogate": "a\ud800b"}
OF_OTHER_KINDS = {
    "list": ["a"],
    "dictionary": {"a": 1},
    "bytes": b"a",
    "true": True,
    "float": 1.5,
    "nan": float("nan"),
    "infinity": float("inf"),
    "nothing": None,
}


# Pictures


def encoded(image: Image.Image, kind: str, **more) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def noise(side: int = 40, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"", more: bytes = b""
) -> bytes:
    "A PNG with any header."
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    packed = chunk(b"IDAT", zlib.compress(data, 9))
    return b"\x89PNG\r\n\x1a\n" + header + more + packed + chunk(b"IEND", b"")


def tiff(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:  # tag, type, count, value
    "A little-endian TIFF with one directory."
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", following) + bytes(64)


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 300, 0, 0, 54) + header + bytes(300)


def gif(width: int, height: int) -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0, 0, 0)
        + b"\x2c"
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\x02\x02\x44\x01\x00;"
    )


def photos(folder: Path, classes=("a", "b"), n: int = 3) -> Path:
    "Some pictures, a folder a class."
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            noise(12, 100 * c + i).save(folder / name / f"{i}.png")
    return folder


# Archives


def zipped(
    file: Path, entries, compression: int = zipfile.ZIP_STORED
) -> Path:  # entries: name or ZipInfo, data
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as z:
        warnings.simplefilter("ignore")
        for name, data in entries:
            z.writestr(name, data, compression)
    return file


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename, info.external_attr, info.create_system = name, mode << 16, 3
    return info


def patched(file: Path, *places: tuple[bytes, int, bytes]) -> Path:  # signature, offset from it, new bytes
    "Change bytes of the records of an archive."
    data = bytearray(file.read_bytes())
    for signature, offset, new in places:
        at = data.find(signature)
        while at >= 0:
            data[at + offset : at + offset + len(new)] = new
            at = data.find(signature, at + 1)
    file.write_bytes(data)
    return file


# Models


def digest(data: bytes, about: dict) -> str:
    return hashlib.sha256(data + to_json(about)).hexdigest()


def raw_safetensors(header, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data
