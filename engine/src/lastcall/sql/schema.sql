-- Made by `python -m lastcall.testing.schema` from migrations and routines; a test compares.
-- It is read, never run. Bodies are in sql/routines.
grant usage on schema lastcall to anon;
grant usage on schema lastcall to lastcall_authenticator;
grant usage on schema lastcall to lastcall_replication;
grant usage on schema lastcall to member;
grant usage on schema lastcall to service;
create function lastcall.add_usage(counts jsonb) returns void language sql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.add_usage(jsonb) to lastcall_authenticator;
create function lastcall.begin_epoch(epoch text, system_identifier text, timeline integer, slot text, kinds jsonb) returns void language plpgsql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.begin_epoch(text,text,integer,text,jsonb) to lastcall_replication;
create function lastcall.begin_run(job text, due_at timestamp with time zone, missed integer) returns void language plpgsql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.begin_run(text,timestamp with time zone,integer) to lastcall_authenticator;
create function lastcall.check_channel(channel text) returns void language plpgsql immutable set search_path=pg_catalog, pg_temp;
create function lastcall.choose_path() returns boolean language plpgsql volatile set search_path=pg_catalog, pg_temp;
create function lastcall.claim(name text) returns text language sql stable parallel safe set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.claim(text) to anon, member, service;
create function lastcall.claims() returns jsonb language sql stable parallel safe set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.claims() to anon, member, service;
create table lastcall.clock (
    only_row boolean not null default true,
    ahead interval not null,
    constraint clock_only_row_check CHECK (only_row),
    constraint clock_pkey PRIMARY KEY (only_row),
);
alter table lastcall.clock enable row level security;
create function lastcall.cluster_birth() returns text language plpgsql stable security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.cluster_birth() to lastcall_replication;
create function lastcall.current_epoch(slot text) returns jsonb language sql stable security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.current_epoch(text) to lastcall_replication;
create function lastcall.emit(prefix text, content jsonb) returns void language plpgsql volatile set search_path=pg_catalog, pg_temp;
create function lastcall.end_run(job text, due_at timestamp with time zone, outcome text, note text) returns void language sql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.end_run(text,timestamp with time zone,text,text) to lastcall_authenticator;
create function lastcall.enter(issuer text, subject text, function text, key text, hash bytea) returns void language plpgsql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.enter(text,text,text,text,bytea) to lastcall_authenticator;
create table lastcall.epoch (
    epoch text not null,
    system_identifier text not null,
    timeline integer not null,
    slot text not null,
    consistent_point pg_lsn not null,
    began_at timestamp with time zone not null default clock_timestamp(),
    constraint epoch_epoch_check CHECK ((epoch ~ '^[a-z0-9]{1,16}$'::text)),
    constraint epoch_pkey PRIMARY KEY (epoch),
);
alter table lastcall.epoch enable row level security;
create function lastcall.feed_catalog(slot text, tables text[]) returns jsonb language sql volatile set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.feed_catalog(text,text[]) to lastcall_replication;
create function lastcall.feed_pulse(slot text) returns jsonb language sql volatile set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.feed_pulse(text) to lastcall_replication;
create function lastcall.feed_source(slot text) returns jsonb language sql volatile set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.feed_source(text) to lastcall_replication;
create table lastcall.idempotency (
    issuer text not null,
    subject text not null,
    function text not null,
    key text not null,
    hash bytea not null,
    xid xid8 not null default pg_current_xact_id(),
    answer text,
    created_at timestamp with time zone not null default clock_timestamp(),
    constraint idempotency_key_check CHECK ((key ~ '^[A-Za-z0-9_-]{1,64}$'::text)),
    constraint idempotency_pkey PRIMARY KEY (issuer, subject, function, key),
);
alter table lastcall.idempotency enable row level security;
CREATE INDEX idempotency_by_age ON lastcall.idempotency USING brin (created_at);
create table lastcall.job_run (
    job text not null,
    due_at timestamp with time zone not null,
    started_at timestamp with time zone not null default clock_timestamp(),
    finished_at timestamp with time zone,
    outcome text not null default 'running'::text,
    missed integer not null default 0,
    note text not null default ''::text,
    constraint job_run_check CHECK (((outcome = 'running'::text) = (finished_at IS NULL))),
    constraint job_run_job_check CHECK (((length(job) >= 1) AND (length(job) <= 100))),
    constraint job_run_missed_check CHECK ((missed >= 0)),
    constraint job_run_note_check CHECK ((length(note) <= 500)),
    constraint job_run_outcome_check CHECK ((outcome = ANY (ARRAY['running'::text, 'done'::text, 'failed'::text, 'quiet'::text, 'new'::text, 'lost'::text]))),
    constraint job_run_pkey PRIMARY KEY (job, due_at),
);
alter table lastcall.job_run enable row level security;
CREATE INDEX job_run_by_age ON lastcall.job_run USING brin (started_at);
CREATE INDEX job_run_running ON lastcall.job_run USING btree (job) WHERE (outcome = 'running'::text);
create function lastcall.keep(answer text, answer_max_bytes integer) returns text language plpgsql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.keep(text,integer) to anon, member, service;
create function lastcall.last_runs(jobs text[]) returns jsonb language sql stable security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.last_runs(text[]) to lastcall_authenticator;
create function lastcall.lose_runs() returns bigint language plpgsql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.lose_runs() to lastcall_authenticator;
create function lastcall.mark_watches(slot text, kinds jsonb) returns jsonb language plpgsql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.mark_watches(text,jsonb) to lastcall_replication;
create function lastcall.messages_trusted() returns boolean language sql stable security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.messages_trusted() to lastcall_replication;
create table lastcall.migration (
    source text not null,
    name text not null,
    hash text not null,
    applied_at timestamp with time zone not null default clock_timestamp(),
    constraint migration_pkey PRIMARY KEY (source, name),
);
alter table lastcall.migration enable row level security;
create function lastcall.note_consistent_point(epoch text, consistent_point pg_lsn) returns void language sql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.note_consistent_point(text,pg_lsn) to lastcall_replication;
create function lastcall.now() returns timestamp with time zone language sql stable security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.now() to anon, member, service;
create table lastcall.path (
    only_row boolean not null default true,
    messages boolean not null,
    constraint path_only_row_check CHECK (only_row),
    constraint path_pkey PRIMARY KEY (only_row),
);
alter table lastcall.path enable row level security;
create function lastcall.publish(channel text, event text, data jsonb) returns void language plpgsql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.publish(text,text,jsonb) to service;
create table lastcall.published (
    id bigint not null generated always as identity,
    prefix text not null,
    content jsonb not null,
    constraint published_pkey PRIMARY KEY (id),
);
alter table lastcall.published enable row level security;
create function lastcall.purge(answers_days integer, records_days integer, rows_max integer) returns bigint language plpgsql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.purge(integer,integer,integer) to lastcall_authenticator;
create function lastcall.revoke(subject text, channel text) returns void language plpgsql volatile security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.revoke(text,text) to service;
create table lastcall.routine (
    source text not null,
    name text not null,
    hash text not null,
    objects text[] not null,
    applied_at timestamp with time zone not null default clock_timestamp(),
    constraint routine_pkey PRIMARY KEY (source, name),
);
alter table lastcall.routine enable row level security;
create function lastcall.set_now(moment timestamp with time zone) returns void language plpgsql volatile set search_path=pg_catalog, pg_temp;
create function lastcall.set_publication(slot text, tables jsonb) returns boolean language plpgsql volatile set search_path=pg_catalog, pg_temp;
create function lastcall.signatures(schemas text[]) returns jsonb language sql stable set search_path=pg_catalog, pg_temp set jit=off;
grant execute on function lastcall.signatures(text[]) to lastcall_authenticator;
create function lastcall.stored(issuer text, subject text, function text, key text) returns text language sql stable security definer set search_path=pg_catalog, pg_temp;
grant execute on function lastcall.stored(text,text,text,text) to lastcall_authenticator;
create table lastcall.usage (
    day date not null,
    subject text not null,
    kind text not null,
    count bigint not null,
    constraint usage_count_check CHECK ((count > 0)),
    constraint usage_kind_check CHECK (((length(kind) >= 1) AND (length(kind) <= 40))),
    constraint usage_pkey PRIMARY KEY (day, subject, kind),
);
alter table lastcall.usage enable row level security;
create table lastcall.watched (
    slot text not null,
    kinds jsonb not null default '{}'::jsonb,
    unsettled text[] not null default '{}'::text[],
    altered_xid xid8,
    publication oid,
    birth text,
    constraint watched_pkey PRIMARY KEY (slot),
);
alter table lastcall.watched enable row level security;
