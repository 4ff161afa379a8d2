"""What is trusted of what comes out of a store.

Unpickling runs what the bytes say. Who cannot trust all that write to a store has two guards: a
key, with which each object is signed whole (its id, class, metadata, references and bytes), and a
list of what pickles may use. The signatures of all that is loaded are looked at before anything
runs, and each name before it is imported.

Signatures do not keep somebody from putting an older version of an object back in its place.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from holdfast.persistence.errors import UntrustedObject
from holdfast.persistence.record import SIGNATURE, Record

_HARMLESS = frozenset(
    {
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.frozenset",
        "builtins.object",
        "builtins.range",
        "builtins.set",
        "builtins.slice",
        "collections.Counter",
        "collections.OrderedDict",
        "collections.deque",
        "copyreg.__newobj__",
        "copyreg.__newobj_ex__",
        "copyreg._reconstructor",
        "datetime.date",
        "datetime.datetime",
        "datetime.time",
        "datetime.timedelta",
        "datetime.timezone",
        "decimal.Decimal",
        "uuid.UUID",
    }
)
"""What every list allows: it makes values, and does nothing else."""


class Allowed:
    """Which names may be used in unpickling.

    ``package.module.Name`` allows exactly that; ``package.*`` all classes of that package or module
    and of those below it. It is looked at where a thing was made, not where it was found.
    """

    def __init__(self, names: Iterable[str]) -> None:
        listed = [names] if isinstance(names, str) else list(names)
        self._exact = _HARMLESS.union(name for name in listed if not name.endswith(".*"))
        self._packages = tuple(name[:-2] for name in listed if name.endswith(".*"))
        self._modules = {name[:at] for name in self._exact for at in _dots(name)}

    def may_import(self, module: str) -> bool:
        """Whether anything of this module may be used; importing a module runs it."""
        return module in self._modules or self._is_packaged(module)

    def allows(self, module: str, name: str, found: object) -> bool:
        """Whether what was found under this name may be used."""
        if "." not in name and f"{module}.{name}" in self._exact:
            return True
        home = getattr(found, "__module__", None)
        called = getattr(found, "__qualname__", None)
        if not isinstance(home, str) or not isinstance(called, str):
            return False
        if f"{home}.{called}" in self._exact:
            return True
        return self._is_packaged(home) and isinstance(found, type)

    def _is_packaged(self, module: str) -> bool:
        return any(module == name or module.startswith(name + ".") for name in self._packages)


class Signer:
    """Signs what is stored, with HMAC-SHA256."""

    UNSIGNED = "0" * 64
    """Takes the place of a signature that is still to come."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, id_: int, record: Record) -> str:
        """What proves that somebody who has the key wrote all of a record, under this id."""
        signed = hmac.new(self._key, digestmod="sha256")
        metadata = sorted(entry for entry in record.metadata.items() if entry[0] != SIGNATURE)
        texts = [record.class_name, *(text for entry in metadata for text in entry)]
        for number in (id_, len(texts)):
            signed.update(number.to_bytes(8, "big"))
        for text in texts:
            data = text.encode()
            signed.update(len(data).to_bytes(8, "big"))
            signed.update(data)
        signed.update(record.body)
        return signed.hexdigest()

    def check(self, id_: int, record: Record) -> None:
        """Checks the signature of a record.

        Raises:
            UntrustedObject: There is none, or it is wrong.
        """
        signature = record.metadata.get(SIGNATURE)
        if signature is None:
            raise UntrustedObject(f"object {id_}", "it is not signed, and this store has a key")
        if not hmac.compare_digest(signature.encode(), self.sign(id_, record).encode()):
            raise UntrustedObject(f"object {id_}", "its signature is wrong")


def _dots(name: str) -> list[int]:
    return [at for at, character in enumerate(name) if character == "."]
