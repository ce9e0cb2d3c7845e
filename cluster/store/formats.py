"""What kind of data a file is, told by its bytes: only formats that can't carry code come out of a store unasked.

Harmless, because reading them runs nothing: safetensors, JSON and other text, Parquet, npy and npz without pickled
objects, PNG and other common images. Everything else (pickles, torch's zip files, executables, archives, formats that are not
known here) is handed out only to a person who asks for it by `--allow-unsafe`, and is never loaded by tlgan. Names do not
count, but for those of pickles: what is called `model.pt` invites to be unpickled, whatever is in it.
"""

from __future__ import annotations

import codecs
import io
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from tlgan.errors import SpecError
from tlgan.manifest import FileEntry, Manifest

HEAD = 64 << 10
WINDOW = 16 << 20  # of a file is searched for calls
MAX_SAFETENSORS_HEADER = 100_000_000  # as safetensors itself reads
MAX_MEMBERS = 10_000
SHOWN = 5
_PICKLE_NAMES = (".pkl", ".pickle", ".pck", ".pcl", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".cloudpickle")
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*")
_CALLS = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD"}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")  # tab, line ends, form feed and escape are text
_NAME = re.compile(r"[A-Za-z_][\w.]* [A-Za-z_][\w.]*")


def refuse_unsafe(manifest: Manifest, file_of: Callable[[FileEntry], Path] | None = None) -> None:
    """Raises `SpecError` naming the files that may carry code. `file_of` gives verified bytes; without it names decide."""
    found = []
    for entry in manifest.files:
        reason = danger(entry.path, file_of(entry)) if file_of else _by_name(entry.path)
        found += [f"{entry.path} ({reason})"] if reason else []
    if found:
        raise SpecError(f"{manifest.ref} holds what could run code when loaded: {some(found)}", hint=_HINT)


def unsafe_files(files: Iterable[tuple[str, Path]]) -> list[str]:
    """The files that a pull will refuse, each with the reason."""
    return [f"{path} ({reason})" for path, file in files if (reason := danger(path, file))]


def some(found: list[str]) -> str:
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


_HINT = "if you trust whoever published it: `tlgan pull --allow-unsafe`; tlgan itself never loads such files"


def danger(name: str, file: Path) -> str | None:
    """Why a file may carry code, or None for one that can't. Nothing of it is run or unpacked."""
    if reason := _by_name(name):
        return reason
    with file.open("rb") as opened:
        head, size = opened.read(HEAD), file.stat().st_size
        for known in (_npy, _zip, _executable, _pickle):
            if reason := known(opened, head, size):
                return reason
        harmless = not head or any(
            known(opened, head, size) for known in (_safetensors, _parquet, _image, _numpy, _text)
        )
    return None if harmless else "not a format that is known to be harmless"


def _by_name(name: str) -> str | None:
    return "named as a pickle" if name.lower().endswith(_PICKLE_NAMES) else None


def _executable(file: BinaryIO, head: bytes, size: int) -> str | None:
    magic = (b"\x7fELF", b"MZ", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe")
    return "an executable" if head.startswith((*magic, b"\xca\xfe\xba\xbe", b"\0asm")) and not _is_text(head) else None


def _npy(file: BinaryIO, head: bytes, size: int) -> str | None:
    return "an array of pickled objects" if head.startswith(b"\x93NUMPY") and not _is_plain_array(file) else None


def _is_plain_array(file: BinaryIO) -> bool:
    """Whether what starts at the beginning of `file` is an array of plain numbers or text."""
    import numpy as np

    try:
        file.seek(0)
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        return read is not None and not read(file)[2].hasobject
    except (ValueError, OSError, EOFError, SyntaxError, TypeError):
        return False


def _zip(file: BinaryIO, head: bytes, size: int) -> str | None:
    """A zip file in which not every member is a plain array: torch's hold pickles."""
    if not head.startswith((b"PK\3\4", b"PK\5\6")):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            if len(archive.infolist()) > MAX_MEMBERS:
                return "a zip file with too many members"
            for member in archive.infolist():
                with archive.open(member) as opened:  # its first bytes, however much it would unpack to
                    if not member.filename.endswith(".npy") or not _is_plain_array(io.BytesIO(opened.read(HEAD))):
                        return "a zip file with other than plain arrays"
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, ValueError, struct.error):
        return "a zip file that can't be read"
    return None


def _pickle(file: BinaryIO, head: bytes, size: int) -> str | None:
    """By its opcodes, which are read and not run: one that would call something before it ends or breaks off."""
    file.seek(0)
    if _calls(file.read(WINDOW)):
        return "a pickle that calls functions"
    return "a pickle" if head[:1] == b"\x80" and not _safetensors(file, head, size) else None


def _calls(data: bytes) -> bool:
    """Whether unpickling gets as far as a call. The stack is followed as `pickletools.dis` does, so text seldom gets far."""
    stack: list[object] = []
    mark = pickletools.markobject
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST") and not _NAME.fullmatch(str(argument)):
                return False
            before = opcode.stack_before
            if mark in before or (opcode.name == "POP" and stack and stack[-1] is mark):
                while stack.pop() is not mark:
                    pass
                before = before[: before.index(mark)] if mark in before else []
            del stack[len(stack) - _available(stack, len(before)) :]
            if opcode.name in _CALLS:
                return True
            stack.extend(opcode.stack_after)
    except Exception:  # not a pickle from here on: genops raises whatever it stumbles over
        return False
    return False


def _available(stack: list[object], wanted: int) -> int:
    if wanted > len(stack):
        raise ValueError("the stack is empty")
    return wanted


def _safetensors(file: BinaryIO, head: bytes, size: int) -> bool:
    if len(head) < 9:
        return False
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= min(MAX_SAFETENSORS_HEADER, size - 8) and head[8:9] == b"{"


def _parquet(file: BinaryIO, head: bytes, size: int) -> bool:
    if not head.startswith(b"PAR1") or size < 12:
        return False
    file.seek(-4, 2)
    return file.read(4) == b"PAR1"


def _image(file: BinaryIO, head: bytes, size: int) -> bool:
    return head.startswith(_IMAGES) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")


def _numpy(file: BinaryIO, head: bytes, size: int) -> bool:
    """An npy or npz that was looked into already."""
    return head.startswith((b"\x93NUMPY", b"PK\3\4", b"PK\5\6"))


def _text(file: BinaryIO, head: bytes, size: int) -> bool:
    return _is_text(head)


def _is_text(head: bytes) -> bool:
    try:
        return not _CONTROL.search(codecs.getincrementaldecoder("utf-8")().decode(head))
    except UnicodeDecodeError:
        return False
