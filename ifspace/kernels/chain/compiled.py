"""Functions that LLVM compiles once, and whose machine code it loads in milliseconds.

The machine code is kept in NUMBA_CACHE_DIR, as that of the package's other compiled functions, else
beside the source or in the user's cache folder, in a file whose name is a key of all that it
depends on: the source, the versions and the processor. It is read there also where nothing can be
written. No folder that can be written to, or a damaged file, costs the time to compile again,
nothing else.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import CFUNCTYPE, c_void_p, cast
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from threading import RLock
from typing import Any, Final
from uuid import uuid4

import llvmlite
from llvmlite import binding as llvm

from ifspace.kernels.chain import translation
from ifspace.kernels.chain.translation import Function, Translation

REMEDY: Final = "set NUMBA_CACHE_DIR"
SYMBOL: Final = "ifspace_entry"
DIGEST: Final = 32
LEVEL: Final = 2  # of LLVM's optimisation; the next takes half as long again, for the same speed
HALF_PRECISION: Final = ("__extendhfsf2", "__truncsfhf2")
LIBGCC: Final = "libgcc_s.so.1"
_log: Final = logging.getLogger("ifspace")
_lock: Final = RLock()

# A child that is forked while another thread compiles would wait for that thread for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


class Entry(Function):
    """A function of 64-bit integers and addresses, without a result, that several threads run.

    Its last two arguments are the `begin` and the `end` of a part of some work, which the threads
    take in turn; an argument `scratch` is the address of memory, of which each thread has its own.
    It is compiled, or loaded, when first used, and runs without Python's global lock.

    Raises: RuntimeError by the first use, where LLVM cannot compile.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        super().__init__(function)
        self.source: str = function.__globals__["__file__"]
        self._code: Callable[[int], None] | None = None
        self._address = 0
        self.seconds = 1  # that compiling takes, about

    @property
    def address(self) -> int:
        """The address of the machine code, a function of C, void(int64 *words).

        The words are the arguments but the last two; how much work there is, how much of it a
        thread takes at a time, the bytes of scratch memory of a thread; and two zeros.
        """
        if not self._address:
            code: Any = self.code
            self._address = cast(code, c_void_p).value or 0
        return self._address

    @property
    def code(self) -> Callable[[int], None]:
        """The machine code, to be called with the address of the words."""
        return self._code or self._first_use()

    def _first_use(self) -> Callable[[int], None]:
        with _lock:
            if self._code is None:
                llvm.initialize_native_target()
                llvm.initialize_native_asmprinter()
                _load_half_precision()
                name, folders = self._file_name(), _folders(Path(self.source))
                kept = (_read(folder / name) for folder in folders if name)
                self._code = next(filter(None, kept), None) or self._compile(folders, name)
        return self._code

    def _compile(self, folders: Sequence[Path], name: str | None) -> Callable[[int], None]:
        """Compile the function, and keep its machine code in a file if possible."""
        folder = _writable(folders) if name else None
        path = folder / name if folder and name else None
        often = (
            f" in every process, for no folder takes it ({REMEDY})" if path is None else ", once"
        )
        _log.warning(
            "ifspace: compiling CPU kernel %s%s, about %d s", self.name, often, self.seconds
        )
        code = self.machine_code(target_machine())
        if path is not None:
            with suppress(OSError):
                _write(path, sha256(code).digest() + code)
        return _loaded(code)

    def machine_code(self, target: Any) -> bytes:
        """Return an object file for a target machine of LLVM."""
        code: bytes = target.emit_object(self.module(target))
        return code

    def module(self, target: Any) -> Any:
        """Return the module of LLVM code with this function alone."""
        code = Translation()
        own = code.function(self).name
        module = llvm.parse_assembly(f"{code.module}\n{_entry_code(own, self.arguments)}")
        module.triple, module.data_layout = target.triple, str(target.target_data)
        options = llvm.create_pipeline_tuning_options(LEVEL)
        # All vectors are written as such, and as many as the registers hold.
        options.loop_vectorization = options.slp_vectorization = False
        options.loop_unrolling = False
        builder = llvm.create_pass_builder(target, options)
        builder.getModulePassManager().run(module, builder)
        return module

    def _file_name(self) -> str | None:
        """Return the name of the file of machine code, or None without the source."""
        try:
            files = self.source, __file__, translation.__file__
            sources = [Path(file).read_bytes() for file in files]
        except OSError:
            return None
        versions = sys.version_info[:2], llvmlite.__version__, processor()
        key = sha256(b"\0".join((*sources, repr(versions).encode()))).hexdigest()
        return f"{self.name}-{key[:DIGEST]}.o"


def target_machine() -> Any:
    """Return LLVM's target machine for the processor."""
    triple, name, features = processor()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=name, features=features, opt=3, codemodel="jitdefault", jit=True
    )


def processor() -> tuple[str, str, str]:
    """Return triple, name and features of the processor, or those of numba's settings."""
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = llvm.get_host_cpu_features().flatten()
    name = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    return llvm.get_process_triple(), name, features


def _folders(source: Path) -> list[Path]:
    """Return the folders where machine code may be, the first choice first."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(chosen, "ifspace")]
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [source.parent / "__pycache__", Path(user, "ifspace")]


def _writable(folders: Sequence[Path]) -> Path | None:
    """Return the first folder that can be written to, or None."""
    for folder in folders:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                return folder
    return None


def _load_half_precision() -> None:
    """Load the functions of half precision that x86 processors without F16C call.

    Without them LLVM would end the process.
    """
    triple, _, features = processor()
    if triple.startswith("x86_64") and "+f16c" not in features:
        llvm.load_library_permanently(LIBGCC)
        for name in HALF_PRECISION:
            if llvm.address_of_symbol(name) is None:
                raise RuntimeError(f"{LIBGCC} has no {name}")


def _entry_code(name: str, arguments: Sequence[str]) -> str:
    """Return LLVM code that calls a function for the parts that no thread has taken.

    See `Entry.address` for the words.
    """
    own = arguments[:-2]
    words = [*own, "count", "size", "bytes", "begun", "taken"]
    places = [f"%p.{n} = getelementptr i64, ptr %words, i64 {i}" for i, n in enumerate(words)]
    loads = [f"%{n} = load i64, ptr %p.{n}" for n in words[:-2]]
    passed = ["%memory" if argument == "scratch" else f"%{argument}" for argument in own]
    values = ", ".join(f"i64 {value}" for value in (*passed, "%begin", "%end"))
    lines = (
        f"define void @{SYMBOL}(ptr %words) {{",
        "start:",
        *places,
        *loads,
        "%thread = atomicrmw add ptr %p.begun, i64 1 seq_cst",
        "%offset = mul i64 %thread, %bytes",
        "%memory = add i64 %scratch, %offset" if "scratch" in own else "",
        "br label %next",
        "next:",
        "%turn = atomicrmw add ptr %p.taken, i64 1 seq_cst",
        "%begin = mul i64 %turn, %size",
        "%more = icmp slt i64 %begin, %count",
        "br i1 %more, label %work, label %done",
        "work:",
        "%full = add i64 %begin, %size",
        "%is_full = icmp slt i64 %full, %count",
        "%end = select i1 %is_full, i64 %full, i64 %count",
        f'call void @"{name}"({values})',
        "br label %next",
        "done:",
        "ret void",
        "}\n",
    )
    return "\n".join(lines)


def _loaded(code: bytes) -> Callable[[int], None]:
    """Return the function of an object file, which takes its arguments as an array of words."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(SYMBOL)
    engine.detach()  # the code stays: when the interpreter ends, a thread may be inside
    return CFUNCTYPE(None, c_void_p)(address)


def _read(path: Path) -> Callable[[int], None] | None:
    """Return the function in a file, or None if there is no file, or a damaged one."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if sha256(data[DIGEST:]).digest() == data[:DIGEST]:
        return _loaded(data[DIGEST:])
    _log.warning("ifspace: %s is damaged", path)
    return None


def _write(path: Path, data: bytes) -> None:
    """Write a file, for all users, so that other processes see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
