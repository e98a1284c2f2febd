-- What every other part stands on. `lastcall migrate` has made the schemas and taken their default privileges away.

create table lastcall.migration (
    source text not null,
    name text not null,
    hash text not null,
    applied_at timestamptz not null default clock_timestamp(),
    primary key (source, name)
);
alter table lastcall.migration enable row level security;
comment on table lastcall.migration is 'Migrations that were applied, with the hash of what was applied.';

create table lastcall.routine (
    source text not null,
    name text not null,
    hash text not null,
    objects text[] not null,
    applied_at timestamptz not null default clock_timestamp(),
    primary key (source, name)
);
alter table lastcall.routine enable row level security;
comment on table lastcall.routine is 'Routine files as they were last applied, and the objects each has made.';

create table lastcall.epoch (
    epoch text primary key check (epoch ~ '^[a-z0-9]{1,16}$'),
    system_identifier text not null,
    timeline integer not null,
    slot text not null,
    consistent_point pg_lsn not null,
    began_at timestamptz not null default clock_timestamp()
);
alter table lastcall.epoch enable row level security;
comment on table lastcall.epoch is 'Lives of the stream; a position belongs to one of them.';

create table lastcall.clock (
    only_row boolean primary key default true check (only_row),
    ahead interval not null
);
alter table lastcall.clock enable row level security;
comment on table lastcall.clock is 'How far the clock of business rules is ahead of the wall clock; no row: not at all.';

create table lastcall.published (
    id bigint generated always as identity primary key,
    prefix text not null,
    content jsonb not null
);
alter table lastcall.published enable row level security;
comment on table lastcall.published is
    'Where publish and revoke go when messages cannot be trusted (see lastcall.path); a row lives for one statement.';

create table lastcall.path (
    only_row boolean primary key default true check (only_row),
    messages boolean not null
);
alter table lastcall.path enable row level security;
comment on table lastcall.path is 'Whether publish and revoke are messages in the log, or rows of lastcall.published.';
