-- Notes on topics; and who may not hear a topic any more.

create table sample.note (
    id bigint generated always as identity primary key,
    topic text not null check (topic ~ '^[A-Za-z0-9_-]{1,64}$'),
    writer integer not null,
    number integer not null,
    body text not null default '' check (length(body) <= 100000)
);
alter table sample.note enable row level security;
alter table sample.note replica identity full;
create index note_of_topic on sample.note (topic, id);

create table sample.banned (
    subject text not null,
    topic text not null,
    primary key (subject, topic)
);
alter table sample.banned enable row level security;

-- What is written here, nobody hears.
create table sample.draft (
    id bigint generated always as identity primary key,
    topic text not null,
    writer integer not null,
    number integer not null,
    body text not null
);
alter table sample.draft enable row level security;
