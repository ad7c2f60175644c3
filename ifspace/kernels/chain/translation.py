"""Python functions of 64-bit integers, translated into LLVM code.

A function that is translated assigns to variables, counts through ranges, branches, and calls other
such functions, `min`, `max` and *pieces*: Python functions that write LLVM code where they are
called. Its variables are integers, truth values, and what pieces return; names of its module are
constants. It is what the bookkeeping around vectors needs, and takes no time to compile: numba
takes seconds for the same functions, most of them to find types that are all one.
"""

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from textwrap import dedent
from typing import Any, Final, NamedTuple

from llvmlite import ir

INT64: Final = ir.IntType(64)
TRUTH: Final = ir.IntType(1)
COMPARISONS: Final[Mapping[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


class Piece:
    """A function `write(builder, *arguments)` that writes LLVM code and may return its value."""

    def __init__(self, write: Callable[..., Any]) -> None:
        self.write = write


class Function:
    """A Python function that is translated where another one calls it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.python = function
        self.name = function.__name__
        self.arguments = function.__code__.co_varnames[: function.__code__.co_argcount]

    @cached_property
    def body(self) -> list[ast.stmt]:
        """The statements."""
        (definition,) = ast.parse(dedent(inspect.getsource(self.python))).body
        assert isinstance(definition, ast.FunctionDef)
        return definition.body

    @cached_property
    def names(self) -> Mapping[str, Any]:
        """What the names are that are not its variables."""
        return {**(names := inspect.getclosurevars(self.python)).globals, **names.nonlocals}

    @property
    def returns(self) -> bool:
        """Whether it has a result, an integer."""
        nodes = (node for statement in self.body for node in ast.walk(statement))
        return any(isinstance(node, ast.Return) and node.value for node in nodes)


class Translation:
    """A module of LLVM code, which holds some functions and those that they call."""

    def __init__(self) -> None:
        self.module: Any = ir.Module()
        self._functions: dict[Function, Any] = {}

    def function(self, function: Function) -> Any:
        """Return a function as LLVM code; it is translated when first asked for.

        Raises: NotImplementedError for what is not translated.
        """
        if function not in self._functions:
            result = INT64 if function.returns else ir.VoidType()
            kind = ir.FunctionType(result, [INT64] * len(function.arguments))
            name = f"{function.name}.{len(self._functions)}"
            code = self._functions[function] = ir.Function(self.module, kind, name)
            code.linkage = "internal"
            _Writer(self, function, code).write()
        return self._functions[function]


def integer(value: int) -> Any:
    """Return a constant."""
    return ir.Constant(INT64, value)


def slot(builder: Any, kind: Any) -> Any:
    """Return room for a value of a type on the stack, which LLVM makes a register."""
    with builder.goto_entry_block():
        return builder.alloca(kind)


def slot_with(builder: Any, value: Any) -> Any:
    """Return room that holds a value."""
    room = slot(builder, value.type)
    builder.store(value, room)
    return room


def declared(builder: Any, kind: Any, name: str) -> Any:
    """Return the function of a name, by default one of LLVM of a type."""
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


class Turn(NamedTuple):
    """A turn of a loop: its number, and the block of code from which the next one begins."""

    index: Any
    next: Any


@contextmanager
def counting(builder: Any, end: Any, begin: Any = None, step: Any = None) -> Iterator[Turn]:
    """Write a loop over begin, begin + step ... below an end, by default from 0 on and by 1."""
    head, body, more, done = (
        builder.append_basic_block(name) for name in ("head", "body", "more", "done")
    )
    start = builder.block
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(INT64)
    builder.cbranch(builder.icmp_signed("<", index, end), body, done)
    builder.position_at_end(body)
    yield Turn(index, more)
    if not builder.block.is_terminated:
        builder.branch(more)
    builder.position_at_end(more)
    index.add_incoming(begin or integer(0), start)
    index.add_incoming(builder.add(index, step or integer(1), flags=["nsw"]), more)
    builder.branch(head)
    builder.position_at_end(done)


class _Writer:
    """Writes the LLVM code of a function."""

    def __init__(self, translation: Translation, function: Function, code: Any) -> None:
        self.translation, self.function = translation, function
        self.builder: Any = ir.IRBuilder(code.append_basic_block("entry"))
        self.variables: dict[str, Any] = {}
        self.turns: list[Any] = []  # where the next turns of the loops begin
        for name, value in zip(function.arguments, code.args, strict=True):
            self.assign(name, value)

    def write(self) -> None:
        """Write all statements."""
        self.statements(self.function.body)
        if not self.builder.block.is_terminated:
            self.builder.ret_void()

    def statements(self, nodes: list[ast.stmt]) -> None:
        """Write statements."""
        for node in nodes:
            self.statement(node)

    def statement(self, node: ast.stmt) -> None:
        """Write a statement."""
        builder = self.builder
        match node:
            case ast.Assign([ast.Name(name)], value):
                self.assign(name, self.value(value))
            case ast.Assign([ast.Tuple(names)], ast.Tuple(values)):
                results = [self.value(value) for value in values]
                for own, result in zip(names, results, strict=True):
                    assert isinstance(own, ast.Name)
                    self.assign(own.id, result)
            case ast.AugAssign(ast.Name(name) as variable, operator, value):
                before = builder.load(self.variables[variable.id])
                self.assign(name, self.operation(operator, before, self.integer(value)))
            case ast.If(test, then, otherwise):
                with builder.if_else(self.truth(test)) as branches:
                    for branch, body in zip(branches, (then, otherwise), strict=True):
                        with branch:
                            self.statements(body)
            case ast.For(ast.Name(name), ast.Call(ast.Name("range"), limits), body):
                self.loop(name, [self.integer(limit) for limit in limits], body)
            case ast.Continue():
                builder.branch(self.turns[-1])
            case ast.Return(None):
                builder.ret_void()
            case ast.Return(ast.expr() as value):
                builder.ret(self.integer(value))
            case ast.Expr(ast.Constant()):
                pass  # a docstring
            case ast.Expr(value):
                self.value(value)
            case _:
                raise NotImplementedError(ast.unparse(node))

    def assign(self, name: str, value: Any) -> None:
        """Write an assignment to a variable, whose type is that of its first value."""
        if name not in self.variables:
            self.variables[name] = slot(self.builder, value.type)
        self.builder.store(value, self.variables[name])

    def loop(self, name: str, limits: list[Any], body: list[ast.stmt]) -> None:
        """Write a loop over a range."""
        begin, end, step = [*([None] if len(limits) == 1 else []), *limits, None][:3]
        with counting(self.builder, end, begin, step) as turn:
            self.assign(name, turn.index)
            self.turns.append(turn.next)
            self.statements(body)
            self.turns.pop()

    def value(self, node: ast.expr) -> Any:
        """Write an expression, and return its value."""
        builder = self.builder
        match node:
            case ast.Constant(int(number)):
                return integer(number)
            case ast.Name(name) if name in self.variables:
                return builder.load(self.variables[name])
            case ast.Name(name):
                return integer(self.function.names[name])
            case ast.BinOp(left, operator, right):
                return self.operation(operator, self.integer(left), self.integer(right))
            case ast.UnaryOp(ast.USub(), operand):
                return builder.neg(self.integer(operand))
            case ast.UnaryOp(ast.Not(), operand):
                return builder.not_(self.truth(operand))
            case ast.Compare(left, operators, others):
                return self.comparison(operators, [self.integer(n) for n in (left, *others)])
            case ast.BoolOp(ast.And(), [first, *others]):
                both = others[0] if len(others) == 1 else ast.BoolOp(ast.And(), others)
                no = ir.Constant(TRUTH, 0)
                return self.choice(self.truth(first), lambda: self.truth(both), lambda: no)
            case ast.IfExp(test, then, otherwise):
                return self.choice(
                    self.truth(test), lambda: self.value(then), lambda: self.value(otherwise)
                )
            case ast.Call(ast.Name(name), arguments):
                return self.call(name, [self.value(argument) for argument in arguments])
        raise NotImplementedError(ast.unparse(node))

    def integer(self, node: ast.expr) -> Any:
        """Write an expression, and return its value as an integer."""
        return self.as_integer(self.value(node))

    def as_integer(self, value: Any) -> Any:
        """Return a value, that of a truth as 0 or 1."""
        return self.builder.zext(value, INT64) if value.type == TRUTH else value

    def truth(self, node: ast.expr) -> Any:
        """Write an expression, and return whether its value is not 0."""
        value = self.value(node)
        return value if value.type == TRUTH else self.builder.icmp_signed("!=", value, integer(0))

    def operation(self, operator: ast.operator, left: Any, right: Any) -> Any:
        """Write an operation on integers; quotients are rounded down."""
        builder = self.builder
        match operator:
            case ast.Add():
                return builder.add(left, right)
            case ast.Sub():
                return builder.sub(left, right)
            case ast.Mult():
                return builder.mul(left, right)
            case ast.FloorDiv() | ast.Mod():
                rest, none = builder.srem(left, right), integer(0)
                signs = builder.icmp_signed("<", builder.xor(rest, right), none)
                is_below = builder.and_(builder.icmp_signed("!=", rest, none), signs)
                if isinstance(operator, ast.Mod):
                    return builder.add(rest, builder.select(is_below, right, none))
                return builder.sub(builder.sdiv(left, right), self.as_integer(is_below))
        raise NotImplementedError(type(operator).__name__)

    def comparison(self, operators: list[ast.cmpop], values: list[Any]) -> Any:
        """Write a < b, or a < b < c ..."""
        pairs = zip(operators, values, values[1:], strict=False)
        holds = [
            self.builder.icmp_signed(COMPARISONS[type(own)], left, right)
            for own, left, right in pairs
        ]
        result = holds[0]
        for other in holds[1:]:
            result = self.builder.and_(result, other)
        return result

    def choice(self, test: Any, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        """Write two expressions, of which one is computed, and return its value."""
        chosen = None
        with self.builder.if_else(test) as branches:
            for branch, write in zip(branches, (then, otherwise), strict=True):
                with branch:
                    value = write()
                    chosen = chosen or slot(self.builder, value.type)
                    self.builder.store(value, chosen)
        return self.builder.load(chosen)

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Write a call."""
        arguments = [self.as_integer(argument) for argument in arguments]
        if name in ("min", "max"):
            first, second = arguments
            is_first = self.builder.icmp_signed("<" if name == "min" else ">", first, second)
            return self.builder.select(is_first, first, second)
        callee = self.function.names[name]
        if isinstance(callee, Piece):
            return callee.write(self.builder, *arguments)
        return self.builder.call(self.translation.function(callee), arguments)
