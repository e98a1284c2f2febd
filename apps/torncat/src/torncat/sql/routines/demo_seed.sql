create or replace function torncat_api.demo_seed() returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from torncat.factions) then
        return;
    end if;
    insert into torncat.factions (id, name) values (101, 'Night Ferry'), (202, 'Copper Vultures');
    insert into torncat.users (id, name, level, faction_id)
    select 1000 + n, name, 20 + (n * 37) % 80, 101
    from unnest(array['Brasslock', 'Calico', 'Duskwire', 'Emberjack', 'Foxglove', 'Gantry', 'Halfmoon', 'Inkwell'])
        with ordinality as member (name, n);
    insert into torncat.users (id, name, level, faction_id)
    select 2000 + n, name, 12 + (n * 53) % 88, 202
    from unnest(array['Ashcroft-9', 'Bitterroot', 'Cinderpath', 'Driftnail', 'Eddystone', 'Flintlark', 'Grimwater',
        'Hollowpoint', 'Ironmoth', 'Jackdaw', 'Kestrelle', 'Lowtide', 'Marrow', 'Nettlebed', 'Oxblood', 'Pale Rider',
        'Quicklime', 'Rustbelt', 'Saltpetre', 'Thornback']) with ordinality as enemy (name, n);
    insert into torncat.wars (id, faction_one_id, faction_two_id, target_score, started_at)
    values (1, 101, 202, 5200, lastcall.now() - interval '47 minutes');
end
$$;
comment on function torncat_api.demo_seed() is 'Two invented factions at war, once, in an empty database.';
grant execute on function torncat_api.demo_seed() to service;
