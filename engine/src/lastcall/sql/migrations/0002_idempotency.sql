-- Each call that came with an Idempotency-Key and succeeded, with its answer. Granted to no one: `enter` writes the row
-- before the call's role is taken, `keep` fills only the row of its own transaction, `stored` reads it for a repetition.

create table lastcall.idempotency (
    issuer text not null,
    subject text not null,
    function text not null,
    key text not null check (key ~ '^[A-Za-z0-9_-]{1,64}$'),
    hash bytea not null,
    xid xid8 not null default pg_current_xact_id(),
    answer text,
    created_at timestamptz not null default clock_timestamp(),
    primary key (issuer, subject, function, key)
);
alter table lastcall.idempotency enable row level security;
create index idempotency_by_age on lastcall.idempotency using brin (created_at);
comment on table lastcall.idempotency is 'Calls that are applied once: what was asked (hash) and what was answered.';
comment on column lastcall.idempotency.answer is 'JSON text; NULL only inside the transaction that makes the call.';
