-- What the feed must remember of the watches it decoded the earlier history with.

create table lastcall.watched (
    slot text primary key,
    kinds jsonb not null default '{}',
    unsettled text[] not null default '{}',
    altered_xid xid8,
    publication oid,
    birth text
);
alter table lastcall.watched enable row level security;
comment on table lastcall.watched is 'Per slot: what each kind of channel is made from, and whether that is live for every open transaction.';
comment on column lastcall.watched.kinds is 'Kind of channel → fingerprint of the watches that feed it.';
comment on column lastcall.watched.unsettled is 'Kinds to reset once more when the transactions open at the last ALTER have ended.';
comment on column lastcall.watched.altered_xid is 'The transaction that altered the publication last.';
comment on column lastcall.watched.publication is 'The publication that the epoch began with: one made anew has missed changes.';
comment on column lastcall.watched.birth is 'The data folder that the epoch began in (lastcall.cluster_birth); NULL: not known.';
