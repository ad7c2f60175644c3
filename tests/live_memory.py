"""The most elements that are live at once in a run of a torch module, counted by hooks."""

import torch
from torch import Tensor, nn
from witness import Shuffle


def peak_by_hooks(module: nn.Module, *inputs: Tensor) -> int:
    """The peak of storages between the first and the last call of a leaf module that touches them.

    The result of the module is live to the end. Views and work in place share a storage; a channel
    shuffle, which torch copies, is an index here. The module does nothing outside its leaves.
    """
    calls: list[list[int]] = []
    sizes: dict[int, int] = {}
    names: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no address is used twice

    def name_of(value: Tensor) -> int:
        kept.append(value)
        storage = value.untyped_storage()
        name = names.setdefault(storage.data_ptr(), storage.data_ptr())
        sizes.setdefault(name, storage.nbytes() // value.element_size())
        return name

    def hook(leaf: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        read = [name_of(value) for value in arguments]
        if isinstance(leaf, nn.ChannelShuffle | Shuffle):
            names[output.untyped_storage().data_ptr()] = read[0]
        calls.append([*read, name_of(output)])

    leaves = [leaf for leaf in module.modules() if not list(leaf.children())]
    handles = [leaf.register_forward_hook(hook) for leaf in leaves]
    with torch.no_grad():
        calls.append([name_of(value) for value in inputs])
        calls.append([name_of(module(*inputs))])
    for handle in handles:
        handle.remove()
    first = {name: index for index, call in reversed([*enumerate(calls)]) for name in call}
    last = {name: index for index, call in enumerate(calls) for name in call}
    return max(
        sum(size for name, size in sizes.items() if first[name] <= index <= last[name])
        for index in range(len(calls))
    )


class Sum(nn.Module):
    """A sum of two feature maps, written over the first."""

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        y += x
        return y
