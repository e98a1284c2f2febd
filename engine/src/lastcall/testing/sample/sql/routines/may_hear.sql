create or replace function sample_api.may_hear(id text) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select lastcall.claim('role') in ('member', 'service')
        and not exists (
            select from sample.banned b where b.subject = lastcall.claim('sub') and b.topic = may_hear.id)
$$;
comment on function sample_api.may_hear(text) is 'Everyone with a token may hear a topic, unless banned from it.';
grant execute on function sample_api.may_hear(text) to anon, member, service;
