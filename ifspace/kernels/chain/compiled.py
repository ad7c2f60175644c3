"""The machine code of `loops.run`: compiled once, kept on disk, loaded in milliseconds.

numba's own cache needs all of numba's types and functions before it reads a file, a third of a
second in every process. So numba is asked for LLVM code alone; the machine code of that is kept in
the folder that numba would use (see NUMBA_CACHE_DIR), in a file whose name is a key of all that it
depends on, and LLVM loads it. A folder that cannot be written to, or a damaged file, costs the time
to compile again.
"""

import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from ctypes import CFUNCTYPE, c_char_p
from hashlib import sha256
from pathlib import Path
from struct import Struct
from tempfile import NamedTemporaryFile
from threading import RLock
from typing import Any, Final

import llvmlite
import numba
from llvmlite import binding as llvm

from ifspace.kernels.chain import loops

ARGUMENTS: Final[int] = loops.run.py_func.__code__.co_argcount
config: Final[Any] = numba.config  # whose attributes are made when it is imported
SYMBOL: Final = "ifspace_run"
SECONDS: Final = 5
DIGEST: Final = 32

_log: Final = logging.getLogger("ifspace")
_lock: Final = RLock()
_pack: Final = Struct(f"{ARGUMENTS}q").pack
# The compiled function, which takes its arguments as an array of 64-bit integers.
_function: Callable[[bytes], None] | None = None


def run(*arguments: int) -> None:
    """Call `loops.run`, without Python's global lock.

    Raises: RuntimeError where numba or LLVM cannot compile.
    """
    (_function or _load_or_compile())(_pack(*arguments))


# A child that is forked while another thread compiles would wait for that thread for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def _load_or_compile() -> Callable[[bytes], None]:
    global _function
    with _lock:
        if _function is None:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            path = _cache_path()
            _function = (path and _read(path)) or _compile(path)
    return _function


def _read(path: Path) -> Callable[[bytes], None] | None:
    """Return the function in a file, or None without one that is whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if sha256(data[DIGEST:]).digest() == data[:DIGEST]:
        return _loaded(data[DIGEST:])
    _log.warning("ifspace: %s is damaged", path)
    return None


def _compile(path: Path | None) -> Callable[[bytes], None]:
    """Compile the function, and keep its machine code in a file if possible."""
    _log.warning("ifspace: compiling the loops of chains, once, about %d seconds", SECONDS)
    code = machine_code(_target_machine())
    if path is not None:
        with suppress(OSError):
            _write(path, sha256(code).digest() + code)
    return _loaded(code)


def machine_code(target: Any) -> bytes:
    """Compile `loops.run` into an object file for a target machine of LLVM."""
    if config.DISABLE_JIT:
        raise RuntimeError("NUMBA_DISABLE_JIT is set")
    types = (numba.types.int64,) * ARGUMENTS
    loops.run.compile(numba.types.void(*types))
    text = loops.run.inspect_llvm(types)
    names = re.findall(r"^define .*?@([\w.]+)\(", text, re.MULTILINE)
    own = next(name for name in names if not name.startswith(("cfunc.", "_ZN7cpython")))
    module = llvm.parse_assembly(text + _entry(own))
    module.triple = target.triple
    module.data_layout = str(target.target_data)
    for function in module.functions:
        if not function.is_declaration and function.name != SYMBOL:
            function.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()  # numba's ways in for Python and C
    passes.run(module, llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options()))
    code: bytes = target.emit_object(module)
    return code


def _entry(name: str) -> str:
    """Return LLVM code that calls a function of numba's, which writes its result and its error."""
    places = range(ARGUMENTS)
    lines = [f"define void @{SYMBOL}(ptr %words) {{", "%result = alloca [2 x ptr]"]
    lines += [f"%p{i} = getelementptr i64, ptr %words, i64 {i}" for i in places]
    lines += [f"%a{i} = load i64, ptr %p{i}" for i in places]
    lines += ["%error = getelementptr ptr, ptr %result, i64 1"]
    own = ", ".join(("ptr %result", "ptr %error", *(f"i64 %a{i}" for i in places)))
    return "\n".join((*lines, f"call i32 @{name}({own})", "ret void", "}", ""))


def _target() -> tuple[str, str, str]:
    """Return triple, name and features of the processor, as numba's settings have them."""
    features = config.CPU_FEATURES
    if features is None:
        features = llvm.get_host_cpu_features().flatten()
    return llvm.get_process_triple(), config.CPU_NAME or llvm.get_host_cpu_name(), features


def _target_machine() -> Any:
    triple, name, features = _target()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=name, features=features, opt=3, codemodel="jitdefault", jit=True
    )


def _loaded(code: bytes) -> Callable[[bytes], None]:
    """Return the function of an object file."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(SYMBOL)
    engine.detach()  # the code stays: at the interpreter's end a thread may be inside
    return CFUNCTYPE(None, c_char_p)(address)


def _cache_path() -> Path | None:
    """Return the file of the machine code, or None without a folder that can be written to."""
    try:
        folder: Any = numba.njit(cache=True)(loops.run.py_func).stats.cache_path
        own = [Path(source).read_bytes() for source in (loops.__file__, __file__)]
    except (RuntimeError, OSError):  # numba: no locator available
        return None
    versions = sys.version_info[:2], numba.__version__, llvmlite.__version__, _target()
    key = sha256(b"\0".join((*own, repr(versions).encode()))).hexdigest()
    return Path(folder, f"loops-{key[:32]}.o")


def _write(path: Path, data: bytes) -> None:
    """Write a file so that another process sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(data)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
