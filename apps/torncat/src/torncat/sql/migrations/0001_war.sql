-- Factions, their members, the wars between them, and the ledger of calls: who says "this target is mine".

create table torncat.factions (
    id bigint primary key check (id > 0),
    name text not null check (length(name) between 1 and 100)
);
alter table torncat.factions enable row level security;

create table torncat.users (
    id bigint primary key check (id > 0),
    name text not null check (length(name) between 1 and 100),
    level integer not null check (level between 1 and 100),
    faction_id bigint references torncat.factions
);
alter table torncat.users enable row level security;
create index users_of_faction on torncat.users (faction_id);

create table torncat.wars (
    id bigint primary key check (id > 0),
    faction_one_id bigint not null references torncat.factions,
    faction_two_id bigint not null references torncat.factions,
    target_score integer not null check (target_score > 0),
    started_at timestamptz not null,
    ended_at timestamptz,
    check (faction_one_id <> faction_two_id),
    check (ended_at >= started_at)
);
alter table torncat.wars enable row level security;
create unique index wars_one_running_of_one on torncat.wars (faction_one_id) where ended_at is null;
create unique index wars_one_running_of_two on torncat.wars (faction_two_id) where ended_at is null;

-- A call is never deleted: it is released, once, with a reason.
create table torncat.target_calls (
    id bigint generated always as identity primary key,
    faction_id bigint not null references torncat.factions,
    war_id bigint not null references torncat.wars,
    caller_id bigint not null references torncat.users,
    target_id bigint not null references torncat.users,
    created_at timestamptz not null default lastcall.now(),
    status text not null default 'open' check (status in ('open', 'released')),
    released_at timestamptz,
    reason text check (reason in ('uncalled', 'hit', 'expired', 'war_ended')),
    check ((status = 'open') = (released_at is null)),
    check ((released_at is null) = (reason is null))
);
alter table torncat.target_calls enable row level security;

-- Exactly one holder: whoever inserts first has the target, whatever a client believes.
create unique index target_calls_one_holder on torncat.target_calls (faction_id, war_id, target_id)
    where status = 'open';
create index target_calls_of_war on torncat.target_calls (war_id, faction_id, created_at);

-- An UPDATE is heard on the channel of its faction, so the old row must carry that column.
alter table torncat.target_calls replica identity full;
