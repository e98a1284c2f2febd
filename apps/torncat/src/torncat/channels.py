"""What a faction hears, and which row changes say it."""

from lastcall import Channel, Watch

FACTION = Channel(
    pattern="faction:{id}",
    authorize="torncat_api.may_hear_faction",
    state="torncat_api.faction_state",
)

CALL_MADE = Watch(
    table="torncat.target_calls",
    channel="faction:{faction_id}",
    event="target_call",
    columns=("id", "caller_id", "target_id", "created_at"),
    operations=frozenset({"insert"}),
)

CALL_RELEASED = Watch(
    table="torncat.target_calls",
    channel="faction:{faction_id}",
    event="call_released",
    columns=("id", "caller_id", "target_id", "status", "released_at", "reason"),
    operations=frozenset({"update"}),
    where={"status": "released"},
)
