"""Both refs of a namespace at one moment. Pure."""

from dataclasses import dataclass

from stargate_gate.kv.records import Commit


@dataclass(frozen=True)
class Snapshot:
    """Both refs of a namespace at one moment; None where there is no such ref."""

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
        """Whether the two are of one transaction; a reader may see one of them before the other.

        Where another writer left out the trailers, nothing is known, and that counts as agreement.
        """
        if self.ledger is None or self.index is None:
            return self.ledger is self.index
        names = {
            commit.trailers["KV-Txn"] for commit in (self.ledger, self.index) if "KV-Txn" in commit.trailers
        }
        return len(names) < 2  # noqa: PLR2004 # two names are two transactions
