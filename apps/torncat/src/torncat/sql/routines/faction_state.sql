-- after: may_hear_faction
create or replace function torncat_api.faction_state(id text) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    with faction as (
        select f.* from torncat.factions f where f.id::text = faction_state.id
    ), war as (
        select w.*, case when w.faction_one_id = f.id then w.faction_two_id else w.faction_one_id end as enemy_id
        from torncat.wars w, faction f
        where f.id in (w.faction_one_id, w.faction_two_id) and w.ended_at is null
    )
    select jsonb_build_object(
        'faction', (select jsonb_build_object('id', f.id, 'name', f.name) from faction f),
        'war', (select jsonb_build_object('id', w.id, 'started_at', w.started_at, 'target_score', w.target_score) from war w),
        'enemy', (select jsonb_build_object('id', e.id, 'name', e.name) from torncat.factions e, war w where e.id = w.enemy_id),
        'members', coalesce((
            select jsonb_agg(jsonb_build_object('id', u.id, 'name', u.name) order by u.name)
            from torncat.users u, faction f where u.faction_id = f.id), '[]'),
        'targets', coalesce((
            select jsonb_agg(jsonb_build_object('id', u.id, 'name', u.name, 'level', u.level) order by u.level desc, u.id)
            from torncat.users u, war w where u.faction_id = w.enemy_id), '[]'),
        'calls', coalesce((
            select jsonb_agg(jsonb_build_object(
                'id', c.id, 'caller_id', c.caller_id, 'target_id', c.target_id, 'created_at', c.created_at) order by c.id)
            from torncat.target_calls c, war w, faction f
            where c.war_id = w.id and c.faction_id = f.id and c.status = 'open'), '[]')
    )
    where torncat_api.may_hear_faction(faction_state.id)
$$;
comment on function torncat_api.faction_state(text) is
    'The board of a faction at war: itself, the enemy, both rosters and the open calls. NULL for strangers.';
grant execute on function torncat_api.faction_state(text) to member, service;
