"""The two refs of a namespace, ledger and index, at one moment. Pure."""

from dataclasses import dataclass

from stargate_gate.kv.records import Commit


@dataclass(frozen=True)
class Snapshot:
    """The commits of both refs at one moment; None where the ref does not exist."""

    ledger: Commit | None = None
    index: Commit | None = None

    @property
    def ledger_root(self) -> bytes | None:
        """The ledger's tree."""
        return None if self.ledger is None else bytes.fromhex(self.ledger.tree)

    @property
    def index_root(self) -> bytes | None:
        """The index's tree."""
        return None if self.index is None else bytes.fromhex(self.index.tree)

    @property
    def oids(self) -> tuple[str | None, str | None]:
        """The commits of ledger and index."""
        return (
            None if self.ledger is None else self.ledger.oid,
            None if self.index is None else self.index.oid,
        )

    @property
    def agrees(self) -> bool:
        """Whether both commits belong to one transaction. A reader may see one ref before the other.

        If another writer left out the trailers, it is not known, and counts as true.
        """
        if self.ledger is None or self.index is None:
            return self.ledger is self.index
        names = {
            commit.trailers["KV-Txn"] for commit in (self.ledger, self.index) if "KV-Txn" in commit.trailers
        }
        return len(names) < 2  # noqa: PLR2004 - two names are two transactions
