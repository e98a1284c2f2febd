create or replace function torncat_api.demo_member(member_id bigint default null) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object('id', u.id, 'name', u.name, 'faction_id', u.faction_id)
    from torncat.users u
    where u.faction_id = 101 and (demo_member.member_id is null or u.id = demo_member.member_id)
    order by u.id limit 1
$$;
comment on function torncat_api.demo_member(bigint) is 'A member of the demonstration''s first faction, to be one of them for a while.';
grant execute on function torncat_api.demo_member(bigint) to service;
