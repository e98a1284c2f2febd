-- How much each user asked for, by day: what the operator's bill is made of.

create table lastcall.usage (
    day date not null,
    subject text not null,
    kind text not null check (length(kind) between 1 and 40),
    count bigint not null check (count > 0),
    primary key (day, subject, kind)
);
alter table lastcall.usage enable row level security;
comment on table lastcall.usage is 'Requests per day and subject; the empty subject is everybody without one.';
