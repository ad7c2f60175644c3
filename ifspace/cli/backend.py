"""Where the work of a command is done: on this machine, or on a cluster that is there already."""

from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click

from ifspace.cli.options import Command, OneOf, with_options

# What has to be installed for a backend, and the extra that brings it.
BACKENDS: Final[Mapping[str, tuple[str, str]]] = {
    "loky": ("", ""),
    "dask": ("distributed", "dask"),
    "ray": ("ray", "ray"),
}
# How long a cluster may take to answer.
CONNECT_S: Final = 10
LEAVE_S: Final = 1
_BACKEND_HELP: Final = (
    "Where the work is done: loky, worker processes of this machine, if not given; dask or ray, a "
    "cluster that runs already."
)
_ADDRESS_HELP: Final = (
    "Of the cluster: of Dask its scheduler, such as tcp://10.0.0.1:8786, or its scheduler file; of "
    "Ray such as auto."
)


def backend_options() -> Callable[[Command], Command]:
    """Add the options of a backend; the command runs where they say, and does not get them."""

    def add(function: Command) -> Command:
        @wraps(function)
        def command(
            *context: click.Context, backend: str | None, address: str | None, **values: Any
        ) -> Any:
            with joined(backend, address):
                return function(*context, **values)

        return with_options(
            (
                click.option(
                    "--backend",
                    type=OneOf(list(BACKENDS)),
                    help=_BACKEND_HELP,
                ),
                click.option(
                    "--address",
                    metavar="ADDRESS",
                    help=_ADDRESS_HELP,
                ),
            )
        )(command)  # type: ignore[return-value]

    return add


def add_backend_arguments(parser: ArgumentParser) -> None:
    """Add the same options to a program that is no command of `ifspace`; `joined` takes them.

    >>> parser = ArgumentParser()
    >>> add_backend_arguments(parser)
    >>> parser.parse_args(["--backend", "dask", "--address", "scheduler.json"]).address
    'scheduler.json'
    """
    parser.add_argument("--backend", choices=list(BACKENDS), help=_BACKEND_HELP)
    parser.add_argument("--address", help=_ADDRESS_HELP)


@contextmanager
def joined(backend: str | None, address: str | None = None) -> Iterator[None]:
    """Let `ifspace.parallel` work on a backend inside the context; nothing changes for None.

    A cluster is joined at its address, never started, and left as it was.

    Raises: SettingError for an address without a cluster's backend, or the other way round, and
        where nothing answers there; click.ClickException where a package is missing.
    """
    from ifspace.errors import SettingError

    cluster = backend is not None and bool(BACKENDS[backend][0])
    if cluster != (address is not None):
        raise SettingError.because(
            "a cluster needs both",
            got=f"--backend {backend}" if address is None else f"--address {address}",
            allowed="--backend dask or ray, and --address",
            remedy="add the other, or leave both out",
            argument="address",
        )
    if backend is None:
        yield
        return
    package, extra = BACKENDS[backend]
    if package and find_spec(package) is None:
        raise click.ClickException(
            f"{package} is not installed: --backend {backend} needs it; install ifspace[{extra}]"
        )
    from ifspace.parallel import configured

    connect = _CONNECT.get(backend)
    if connect is None or address is None:
        with configured(backend):
            yield
        return
    try:
        leave = connect(address)
    except (OSError, ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise SettingError.because(
            "no cluster answers",
            got=f"{address} ({' '.join(str(error).split())[:80] or type(error).__name__})",
            allowed="the address of one that runs",
            remedy="start it, or mend the address",
            argument="address",
        ) from None
    try:
        with configured(backend):
            yield
    finally:
        leave()


def _connect_dask(address: str) -> Callable[[], None]:
    import logging

    from distributed import Client

    # What it says of connections that are lost comes as an error of the work.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    place = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    client = Client(**place, timeout=CONNECT_S)

    def leave() -> None:
        with suppress(Exception):  # the scheduler may be gone
            client.close(timeout=LEAVE_S)

    return leave


def _connect_ray(address: str) -> Callable[[], None]:
    import logging

    import ray
    from ray.util.joblib import register_ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    register_ray()
    leave: Callable[[], None] = ray.shutdown
    return leave


_CONNECT: Final[Mapping[str, Callable[[str], Callable[[], None]]]] = {
    "dask": _connect_dask,
    "ray": _connect_ray,
}
