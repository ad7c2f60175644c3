"""A network as one Python file in plain torch: its blocks as classes, its forward by torch.fx.

The network is run once on images while every call is written down (Reed et al., torch.fx: symbolic
tracing). Sizes are those of the images, but the first one of each feature map, which is the number
of images; what the code decides by sizes is decided. The file needs torch alone; its weights are
beside it.
"""

import ast
import inspect
import operator
import os
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from ifspace.errors import IfspaceError, KernelError
from ifspace.models.surgery import copy_of_network
from ifspace.nn.block import BlockModule
from ifspace.nn.checks import evaluated, first_line
from ifspace.nn.source import to_source
from ifspace.storage import replacing

WEIGHTS_SUFFIX: Final = ".pt"
NAME: Final = "Network"
_VALUE: Final = "ifspace_value"
# Modules of Python that calls are of.
_PYTHON: Final = ("builtins", "_operator", "operator", "math")
# Functions whose argument says whether the network is in training, and its place.
_TRAINING: Final[dict[Any, int]] = {
    nn.functional.batch_norm: 5,
    nn.functional.dropout: 2,
    nn.functional.dropout2d: 2,
    nn.functional.dropout1d: 2,
    nn.functional.alpha_dropout: 2,
}
_HEAD: Final = '''\
"""{title}, in plain torch, for images [N, {channels}, {height}, {width}].

`load()` returns the network with its weights, which are in {weights} beside this file. What runs in
training alone, such as stochastic depth, is not there, but dropout and batch norm are.
"""

{imports}


def put(root: nn.Module, name: str, part: nn.Module | torch.Tensor | None) -> None:
    """Give a module, a parameter or a buffer its full name inside a module."""
    *parents, last = name.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root._modules[parent]
    if isinstance(part, nn.Module):
        root.add_module(last, part)
    elif isinstance(part, nn.Parameter):
        root.register_parameter(last, part)
    else:
        root.register_buffer(last, part)
'''
_ROLLING: Final = '''

class RollingPointwiseConv2d(nn.Module):
    """A 1x1 convolution each filter of which reads a window of w = C_in / groups channels.

    Windows start s = w - floor(overlap w) channels apart and wrap around; filter j reads window
    j mod P of the P distinct ones, in blocked order window floor(j P / C_out).
    """

    def __init__(self, c_in, c_out, groups=1, overlap="0", bias=True, impl="", order="rolling"):
        super().__init__()
        width = c_in // groups
        step = width - int(Fraction(overlap) * width)
        count = c_in // gcd(step, c_in)
        filters = torch.arange(c_out)
        window = filters * count // c_out if order == "blocked" else filters % count
        channels = (window[:, None] * step + torch.arange(width)) % c_in
        self.register_buffer("channels", channels, persistent=False)
        self.c_in = c_in
        self.weight = nn.Parameter(torch.empty(c_out, width))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zeros = self.weight.new_zeros(len(self.weight), self.c_in)
        weight = zeros.scatter(1, self.channels, self.weight)
        return nn.functional.conv2d(x, weight[:, :, None, None], self.bias)
'''
_TAIL: Final = '''

def load(path: str | os.PathLike[str] = WEIGHTS, device: str = "cpu") -> Network:
    """Return the network with the weights of a file, in evaluation mode."""
    network = Network()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().to(device)
'''


def save_source(
    model: nn.Module, example: Tensor, path: str | os.PathLike[str], title: str = "A network"
) -> None:
    """Write a network as a Python file that needs torch alone, its weights as FILE.pt beside it.

    `example` [N, C, H, W]: images of the size that the file shall take. The file computes the same:
    it is run before it is written.

    Raises: KernelError for a network that torch.fx cannot write down, with the reason.
    """
    file = Path(path)
    weights_file = file.with_suffix(WEIGHTS_SUFFIX)
    source, weights = network_source(model, example, f"{file.stem}: {title}", weights_file.name)
    _check(source, weights, model, example)
    data = BytesIO()
    torch.save(weights, data)
    with replacing(weights_file) as temporary:
        temporary.write_bytes(data.getvalue())
    with replacing(file) as temporary:
        temporary.write_text(source, encoding="utf-8")


def network_source(
    model: nn.Module, example: Tensor, title: str, weights_file: str
) -> tuple[str, dict[str, Tensor]]:
    """Return the source of a network, and its weights by the names in it.

    Raises: KernelError for a network that torch.fx cannot write down.
    """
    graph, root = _traced(model, torch.cat([example, example])[:2])
    blocks = _Blocks()
    parts: list[str] = []
    weights: dict[str, Tensor] = {}
    state = root.state_dict()
    for name, part in _used(graph, root):
        if isinstance(part, nn.Module):
            parts.append(f'put(self, "{name}", {blocks.call(part)})')
            weights |= {key: value for key, value in state.items() if key.startswith(f"{name}.")}
        else:
            parts.append(f'put(self, "{name}", {_tensor_call(part)})')
            weights[name] = part.detach()
    code = graph.python_code("self")
    imports = ["import os", "from pathlib import Path"]
    for key, value in code.globals.items():
        imports += _imports(key, value, code.src)
    if blocks.needs_rolling:
        imports += ["from fractions import Fraction", "from math import gcd"]
    _, channels, height, width = example.shape
    text = _HEAD.format(
        title=title,
        channels=channels,
        height=height,
        width=width,
        weights=weights_file,
        imports="\n".join(
            [
                *sorted(set(imports)),
                "",
                "import torch",
                "from torch import Tensor, nn",
                "",
                f'WEIGHTS = Path(__file__).with_name("{weights_file}")',
            ]
        ),
    )
    text += _ROLLING if blocks.needs_rolling else ""
    text += "".join(f"\n\n{source}\n" for source in blocks.sources)
    text += f'\n\nclass {NAME}(nn.Module):\n    """{title}."""\n\n    def __init__(self) -> None:\n'
    text += "        super().__init__()\n" + "".join(f"        {line}\n" for line in parts)
    text += "\n" + _forward(code.src)
    return text + _TAIL, {name: tensor.cpu().contiguous() for name, tensor in weights.items()}


def _forward(text: str) -> str:
    """Return the forward that torch.fx wrote, as a method without its marks."""
    lines = text.strip("\n").split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith("def forward("))
    body = [line.replace(";  ", "; ") for line in lines[start:]]
    return "".join(f"    {line}\n" if line.strip() else "\n" for line in body)


def _imports(name: str, value: Any, text: str) -> Iterator[str]:
    """Yield the lines that import a name that the code of torch.fx uses."""
    if name not in text or name == "torch":
        return
    if inspect.ismodule(value) and value.__name__.partition(".")[0] in ("torch", "math"):
        yield (
            f"import {value.__name__}"
            if name == value.__name__
            else (f"import {value.__name__} as {name}")
        )
    elif name in ("inf", "nan"):
        yield f"from math import {name}"
    elif name == "device":
        yield "from torch import device"
    elif name == "NoneType":
        yield "from types import NoneType"
    elif getattr(value, "__module__", None) in _PYTHON:
        module = "operator" if value.__module__ == "_operator" else value.__module__
        if module != "builtins" or name != value.__name__:
            yield f"from {module} import {value.__name__} as {name}"
    elif name not in ("fx_pytree", "pytree"):
        if not _is_importable(value):
            module = getattr(value, "__module__", "")
            raise _untraceable(f"it calls {module}.{getattr(value, '__name__', name)}")
        yield f"from {value.__module__} import {value.__name__} as {name}"


def _is_importable(function: Any) -> bool:
    """Return whether a file of plain torch can have a function: one of Python or of torch."""
    module = str(getattr(function, "__module__", "torch"))
    return module.partition(".")[0] in (*_PYTHON, "torch")


class _Blocks:
    """The classes of the blocks, each once, and how modules are made."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.needs_rolling = False
        self._names: dict[str, str] = {}

    def call(self, module: nn.Module) -> str:
        """Return the expression that makes a module."""
        if isinstance(module, BlockModule):
            return f"{self._class_of(module)}()"
        return _call_of(module)

    def _class_of(self, block: BlockModule) -> str:
        key = to_source(block, "Block")
        if key not in self._names:
            name = f"Block{len(self._names) + 1}"
            self._names[key] = name
            lines = to_source(block, name).split("\n")
            self.needs_rolling |= lines[0].startswith("from ifspace.nn import")
            first = next(
                number for number, line in enumerate(lines) if line.startswith(("class ", "def "))
            )
            texts = "\n".join(lines[first:]).rstrip("\n").split("\n\n\n")
            for text in texts:  # the functions that load weights are the same for all
                if text not in self.sources:
                    self.sources.append(text)
        return self._names[key]


def _call_of(module: nn.Module) -> str:
    """Return the expression that makes a module of torch, from what `repr` shows of it.

    Arguments that have their default are left out, as other versions of torch may not know them.

    Raises: KernelError for a module that `repr` does not show in full.
    """
    cls = type(module)
    try:
        if any(True for _ in module.children()):
            raise ValueError("it has modules inside")
        call: Any = ast.parse(f"nn.{module!r}", mode="eval").body
        parameters = inspect.signature(cls.__init__).parameters
        call.keywords = [
            word
            for word in call.keywords
            if word.arg in parameters
            and repr(parameters[word.arg].default) != repr(ast.literal_eval(word.value))
        ]
        text = ast.unparse(call)
        rebuilt = eval(text, {"nn": nn})
    except Exception as error:
        raise _untraceable(f"{cls.__name__} cannot be written ({first_line(error)})") from None
    shapes = [
        {name: tensor.shape for name, tensor in part.state_dict().items()}
        for part in (module, rebuilt)
    ]
    if type(rebuilt) is not cls or repr(rebuilt) != repr(module) or shapes[0] != shapes[1]:
        raise _untraceable(f"{cls.__name__} does not show all that it is made of")
    return text


def _tensor_call(tensor: Tensor) -> str:
    """Return the expression that makes a parameter or a buffer, without its values."""
    zeros = f"torch.zeros({list(tensor.shape)}, dtype={tensor.dtype})"
    return f"nn.Parameter({zeros})" if isinstance(tensor, nn.Parameter) else zeros


def _used(graph: fx.Graph, root: nn.Module) -> Iterator[tuple[str, nn.Module | Tensor]]:
    """Yield the modules, parameters and buffers that a graph uses, each once."""
    seen: set[str] = set()
    for node in graph.nodes:
        name = str(node.target)
        if node.op not in ("call_module", "get_attr") or name in seen or node.meta.get("training"):
            continue
        seen.add(name)
        if node.op == "call_module":
            yield name, root.get_submodule(name)
        else:
            parent, _, last = name.rpartition(".")
            value = getattr(root.get_submodule(parent), last)
            if not isinstance(value, Tensor):
                raise _untraceable(f"{name} is no tensor")
            yield name, value


# ------------------------------------------------------------------ the calls, written down


class _Sized(fx.Proxy):
    """Stands for a value of which the sizes are known, but for the number of images."""

    _is_param = False  # what isinstance asks of a tensor for nn.Parameter

    @property
    def known(self) -> Any:
        """The value in the run that is written down."""
        return self.node.meta[_VALUE]

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """A tensor, for code that asks with isinstance."""
        return Tensor if isinstance(self.node.meta.get(_VALUE), Tensor) else type(self)

    @property
    def shape(self) -> Any:
        """The sizes; the first one is a value of its own."""
        if not isinstance(self.known, Tensor):
            return fx.Proxy.__getattr__(self, "shape")
        sizes = tuple(self.known.shape)
        if not sizes:
            return sizes
        first = self.tracer.create_proxy("call_method", "size", (self, 0), {})
        return (first, *sizes[1:])

    @property
    def ndim(self) -> Any:
        """The number of axes."""
        return self.known.dim()

    def dim(self) -> Any:
        """Return the number of axes."""
        return self.known.dim()

    def size(self, axis: int | None = None) -> Any:
        """Return the sizes, or that of an axis."""
        return self.shape if axis is None else self.shape[axis]

    def __len__(self) -> int:
        return len(self.known)


class _Tracer(fx.Tracer):
    """Writes down the calls of a network on images, and runs them."""

    def __init__(self, example: Tensor) -> None:
        super().__init__(autowrap_functions=())
        self._example = example
        self._runs = False  # a call that was written down: what it calls inside is not

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Return the forward of the network and its arguments; all but the images have defaults."""
        name = next(name for name in inspect.signature(self.root.forward).parameters)
        return root_fn, [self.root, self.create_proxy("placeholder", name, (), {})]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is called as it is: those of torch, and blocks."""
        if isinstance(m, BlockModule):
            # The convolutions of a block may have become blocks themselves.
            return not any(isinstance(part, BlockModule) for part in m.children())
        of_torch = type(m).__module__.startswith("torch.nn.modules.")
        return of_torch and not any(True for _ in m.children())

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Write down the call of a module, or look into it."""
        return (
            forward(*args, **kwargs)
            if self._runs
            else super().call_module(m, forward, args, kwargs)
        )

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        """Return what stands for a parameter or a buffer."""
        return attr_val if self._runs else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_arg(self, a: Any) -> Any:
        """Return the node of a value, which says that it is a tensor."""
        return a.node if issubclass(type(a), fx.Proxy) else super().create_arg(a)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return what stands for the value of a node."""
        return _Sized(node, self)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **names: Any
    ) -> Any:
        """Write down a call, and run it; look into functions of other packages (`fx.wrap`)."""
        if kind == "call_function" and not _is_importable(target):
            return target(*args, **kwargs)
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **names)
        node = proxy.node
        self._runs = True
        try:
            node.meta[_VALUE] = self._run(node)
        finally:
            self._runs = False
        return proxy

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Return whether a value is true; those of images are not known."""
        value = obj.node.meta[_VALUE]
        if isinstance(value, Tensor):
            return super().to_bool(obj)
        return bool(value)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Return the elements of a tuple, or the rows of a tensor."""
        elements: Any = obj
        return iter([elements[index] for index in range(len(obj.node.meta[_VALUE]))])

    def _run(self, node: fx.Node) -> Any:
        """Return the value of a node in this run."""

        def value_of(argument: fx.Node) -> Any:
            if _VALUE not in argument.meta:  # a parameter or a constant among the arguments
                argument.meta[_VALUE] = self._run(argument)
            return argument.meta[_VALUE]

        args, kwargs = fx.map_arg(node.args, value_of), fx.map_arg(node.kwargs, value_of)
        target: Any = node.target
        with torch.no_grad():
            if node.op == "placeholder":
                return self._example
            if node.op == "get_attr":
                return operator.attrgetter(target)(self.root)
            if node.op == "call_function":
                return target(*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)
            if node.op == "call_module":
                return self.root.get_submodule(target)(*args, **kwargs)
        return None


def _traced(model: nn.Module, example: Tensor) -> tuple[fx.Graph, nn.Module]:
    """Return the calls of a network on images, and the module that holds what they use."""
    tracer = _Tracer(example)
    root = copy_of_network(model)  # constants become attributes of it
    try:
        with evaluated(root):
            graph = tracer.trace(root)
    except IfspaceError:
        raise
    except Exception as error:
        raise _untraceable(first_line(error)) from error
    graph.eliminate_dead_code(_has_effect)
    for node in list(graph.nodes):
        node.type = None  # an annotation may name a class of another package
        place = _TRAINING.get(node.target) if node.op == "call_function" else None
        if place is not None:
            with graph.inserting_before(node):
                training = graph.get_attr("training")
            training.meta["training"] = True
            if len(node.args) > place:
                node.update_arg(place, training)
            else:
                node.update_kwarg("training", training)
    graph.lint()
    return graph, root


def _has_effect(node: fx.Node) -> bool:
    """Return whether a call counts though nothing reads its result: work in place."""
    if node.op in ("call_function", "call_method"):
        name = str(getattr(node.target, "__name__", node.target))
        return name.endswith("_") or name in ("setitem", "iadd", "isub", "imul", "itruediv")
    return node.op in ("placeholder", "output")


def _check(source: str, weights: Mapping[str, Tensor], model: nn.Module, example: Tensor) -> None:
    """Run a source, and compare what it computes. Raises: KernelError."""
    namespace: dict[str, Any] = {"__name__": "ifspace_saved_source", "__file__": "saved.py"}
    exec(compile(source, "saved.py", "exec"), namespace)
    network = namespace[NAME]()
    network.load_state_dict(weights)
    network.to(example.device, example.dtype)
    for count in (1, 3):
        x = torch.randn((count, *example.shape[1:]), dtype=example.dtype, device=example.device)
        with evaluated(model), evaluated(network):
            expected, found = model(x), network(x)
        pairs = zip(_tensors(expected), _tensors(found), strict=True)
        if not all(
            one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-4)
            for one, other in pairs
        ):
            raise _untraceable(f"it computes something else on {count} images")


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value
    return [tensor for item in items for tensor in _tensors(item)]


def _untraceable(reason: str) -> KernelError:
    return KernelError.because(
        "no Python source of this network",
        got=reason,
        allowed="networks whose calls torch.fx can write down",
        remedy="save it as .safetensors, .onnx or .pt2",
        argument="save",
    )
