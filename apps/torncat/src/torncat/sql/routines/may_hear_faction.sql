create or replace function torncat_api.may_hear_faction(id text) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select lastcall.claim('role') = 'service'
        or exists (
            select from torncat.users u
            where u.id::text = lastcall.claim('sub')
                and u.faction_id::text = may_hear_faction.id
                and u.faction_id::text = lastcall.claim('faction_id')
        )
$$;
comment on function torncat_api.may_hear_faction(text) is
    'Whether the token''s member belongs to this faction now: only then may they hear its calls.';
grant execute on function torncat_api.may_hear_faction(text) to member, service;
