"""What a node needs for its repositories, whatever its role: built first, and in the order of dependency."""

from dataclasses import dataclass

from stargate_gate.config.model import Config
from stargate_gate.datadir.layout import DataDir
from stargate_gate.node.repository_survey import RepositorySurvey
from stargate_gate.node.settings import checks_after_unclean_end, scrub_settings
from stargate_gate.node.term_changes import DiskSync, LedTerm
from stargate_gate.replication.rescue.journal import FILE_NAME as JOURNAL
from stargate_gate.replication.rescue.journal import Journal, forget_journal
from stargate_gate.replication.rescue.store import FOLDER as RESCUES
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.repos.housekeeping import Housekeeping
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import find_all
from stargate_gate.repos.store import Store
from stargate_gate.scrub.checker import Checker
from stargate_gate.scrub.progress import FILE_NAME as SCRUB
from stargate_gate.scrub.progress import Progress, RunningMark
from stargate_gate.scrub.scrubber import Scrubber


@dataclass(frozen=True)
class Repositories:
    """The repositories of this node, and what works on them.

    led        the term that this node leads, if any: only then new folders get ids
    rescues    values that only this node had, kept
    journal    what this node has and others may lack; None: a single node keeps none
    """

    datadir: DataDir
    processes: GitProcesses
    led: LedTerm
    rescues: Rescues
    journal: Journal | None
    store: Store
    refs: RefReader
    housekeeping: Housekeeping
    survey: RepositorySurvey
    scrub: Scrubber
    disk_sync: DiskSync


def open_repositories(config: Config, datadir: DataDir, processes: GitProcesses) -> Repositories:
    """Read what is on disk of them.

    Raises:
        ConfigurationError: a file of the node's own is damaged.
    """
    led = LedTerm()
    rescues = Rescues.open(datadir.state / RESCUES)
    store = Store(
        datadir,
        processes,
        default_branch=config.repositories.default_branch,
        trash_days=config.repositories.trash_days,
        must_stay=rescues.has,
        leads=led.leads,
    )
    return Repositories(
        datadir=datadir,
        processes=processes,
        led=led,
        rescues=rescues,
        journal=_open_journal(config, datadir),
        store=store,
        refs=RefReader(processes),
        housekeeping=Housekeeping(store, processes),
        survey=RepositorySurvey(store, alone=config.cluster is None),
        scrub=Scrubber(
            datadir.repositories,
            Checker(store, processes),
            Progress.open(datadir.state / SCRUB),
            scrub_settings(config),
            mark=RunningMark(datadir) if checks_after_unclean_end(config) else None,
        ),
        disk_sync=DiskSync(),
    )


def _open_journal(config: Config, datadir: DataDir) -> Journal | None:
    path = datadir.state / JOURNAL
    if config.cluster is None:
        forget_journal(path)
        return None
    first = next(iter(find_all(datadir.repositories, lambda _path, _reason: None)), None)
    return Journal.open(path, has_repositories=first is not None)
