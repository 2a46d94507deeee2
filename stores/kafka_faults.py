"""What Kafka's errors mean here, by name; the client's own text may quote what was sent, so only the name goes on."""

from core.errors import BlockedError, DamagedError, FirnError, OutcomeUnknownError, RefusedError

START = "start it with `./firn stack up`, or set `bootstrap` of [kafka]; then run the same command again"
MAKE_TOPICS = "`./firn stack up` makes the topics of each configured region"

UNREACHABLE = frozenset({"_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT", "_WAIT_COORD"})
UNDECIDED = frozenset({"_MSG_TIMED_OUT", "REQUEST_TIMED_OUT", "_PURGE_INFLIGHT"})
# While leaders and coordinators settle, as they do just after a topic is made; the caller has seen that it exists.
PASSING = frozenset(
    {
        "LEADER_NOT_AVAILABLE",
        "NOT_LEADER_FOR_PARTITION",
        "UNKNOWN_TOPIC_OR_PART",
        "COORDINATOR_NOT_AVAILABLE",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "NOT_COORDINATOR",
    }
)
MISSING = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"})
GAP = frozenset({"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "_NO_OFFSET"})
HANDED_OVER = frozenset(
    {
        "ILLEGAL_GENERATION",
        "UNKNOWN_MEMBER_ID",
        "REBALANCE_IN_PROGRESS",
        "FENCED_INSTANCE_ID",
        "_ASSIGNMENT_LOST",
        "_MAX_POLL_EXCEEDED",
    }
)
REFUSED = frozenset(
    {
        "MSG_SIZE_TOO_LARGE",
        "RECORD_LIST_TOO_LARGE",
        "TOPIC_AUTHORIZATION_FAILED",
        "GROUP_AUTHORIZATION_FAILED",
        "INVALID_REPLICATION_FACTOR",
        "INVALID_PARTITIONS",
        "TOPIC_EXCEPTION",
    }
)


def translated(bootstrap: str, name: str, doing: str) -> FirnError:
    """`doing` completes "Kafka could not …"."""
    if name in UNREACHABLE:
        return BlockedError(f"Kafka does not answer at {bootstrap}", START)
    if name in UNDECIDED:
        return OutcomeUnknownError(f"Kafka did not say in time whether it could {doing}", "do it again: ids repeat")
    what, do, kind = _known(name)
    return kind(f"Kafka could not {doing}: {what}", do)


def commit_fault(bootstrap: str, name: str) -> FirnError:
    """As `translated`, but an offset commit without an answer may have been stored."""
    undecided = "REQUEST_TIMED_OUT" if name in UNREACHABLE else name
    return translated(bootstrap, undecided, "take an offset commit")


def _known(name: str) -> tuple[str, str, type[FirnError]]:
    if name in MISSING:
        return "there is no such topic", MAKE_TOPICS, BlockedError
    if name in GAP:
        what = "the place to go on from is not in the log"
        return what, "look at the gap with `./firn status` before anything commits past it", DamagedError
    if name in HANDED_OVER:
        return "another consumer owns the partitions now", "close this consumer and open one anew", BlockedError
    if name in REFUSED:
        return name, "correct the request, or the rights in Kafka", RefusedError
    return name, "run the same again; then look at Kafka's own log", BlockedError
