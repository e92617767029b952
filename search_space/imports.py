"""What a candidate may import, and what the names it imported stand for."""

from __future__ import annotations

import ast

from .contract import ALLOWED_IMPORTS

# Parts of torch that reach files, processes, compilers or global settings.
_FORBIDDEN_TORCH = {
    "_C": "it is internal",
    "_dynamo": "it is internal",
    "_inductor": "it is internal",
    "backends": "it changes global settings",
    "builtins": "it leads out of torch",
    "classes": "it loads native code",
    "compile": "the trainer alone decides what is compiled",
    "cuda": "the backbone places the mixer",
    "distributed": "a mixer runs in one process",
    "from_file": "it touches files",
    "hub": "it downloads code",
    "importlib": "it leads out of torch",
    "inspect": "it leads out of torch",
    "jit": "the trainer alone decides what is compiled",
    "library": "it registers global operators",
    "load": "it touches files",
    "manual_seed": "seeds are the trainer's",
    "multiprocessing": "a mixer runs in one process",
    "ops": "it reaches native operators directly",
    "os": "it leads out of torch",
    "package": "it touches files",
    "save": "it touches files",
    "seed": "seeds are the trainer's",
    "serialization": "it touches files",
    "set_default_device": "it changes global settings",
    "set_default_dtype": "it changes global settings",
    "set_num_threads": "it changes global settings",
    "sys": "it leads out of torch",
    "use_deterministic_algorithms": "it changes global settings",
}
_ALLOWED_TORCH_UTILS = ("torch.utils.checkpoint",)
_LAYERS = "linearch.search_space.layers"


class ImportTable:
    """The local names that top-level and nested imports bind, with the dotted names they mean."""

    def __init__(self, tree: ast.AST) -> None:
        self.names: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    root = alias.name.partition(".")[0]
                    self.names[alias.asname or root] = alias.name if alias.asname else root
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.names[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def dotted_name(self, node: ast.expr) -> str | None:
        """`F.silu` as "torch.nn.functional.silu"; None for what no import leads to."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.names:
            return None
        return ".".join([self.names[node.id], *reversed(parts)])


def import_problem(node: ast.Import | ast.ImportFrom) -> str | None:
    """Why an import statement is refused, or None."""
    if isinstance(node, ast.ImportFrom):
        if node.level or node.module is None:
            return "relative imports are not allowed; a candidate is one file"
        for alias in node.names:
            if alias.name == "*":
                return f"`from {node.module} import *` is not allowed; name what is used"
            problem = _module_problem(node.module, alias.name)
            if problem is not None:
                return problem
        return None
    for alias in node.names:
        problem = _module_problem(alias.name)
        if problem is None and alias.name == _LAYERS and alias.asname is None:
            problem = f"write `from {_LAYERS} import ...` instead of importing it by its full name"
        if problem is not None:
            return problem
    return None


def torch_problem(dotted: str | None) -> str | None:
    """Why a dotted name below torch is refused, or None (also for names outside torch)."""
    if dotted is None or not dotted.startswith("torch."):
        return None
    part = dotted.split(".")[1]
    if part in _FORBIDDEN_TORCH:
        return f"`torch.{part}` is not allowed in a mixer: {_FORBIDDEN_TORCH[part]}"
    is_utils = part == "utils" and dotted != "torch.utils"
    if is_utils and not f"{dotted}.".startswith(tuple(f"{u}." for u in _ALLOWED_TORCH_UTILS)):
        return f"`{dotted[:60]}` is not allowed in a mixer: it has nothing a mixer needs"
    return None


def _module_problem(module: str, name: str | None = None) -> str | None:
    full = module if name is None else f"{module}.{name}"
    if module.partition(".")[0] == "torch":
        return torch_problem(full)
    if module in ALLOWED_IMPORTS or full in ALLOWED_IMPORTS:
        return None
    if full.startswith("linearch.kernels."):
        return f"import from `linearch.kernels` itself, not from `{module[:60]}`"
    return f"importing `{full[:60]}` is not allowed; allowed are {', '.join(ALLOWED_IMPORTS)}"
