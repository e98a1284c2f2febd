-- `form` says which JSON an argument is written as, and how PostgreSQL gets it (see postgres/signature.py).
create or replace function lastcall.signatures(schemas text[]) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
set jit = off -- compiling this costs more than running it
as $$
    with recursive function as (
        select p.*, n.nspname
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = any (signatures.schemas) and p.prokind = 'f'
    ), argument as (
        select f.oid, a.place, a.type, coalesce(f.proargnames[a.place], '') as name,
            coalesce(f.proargmodes[a.place], 'i') as mode
        from function f
        cross join lateral unnest(coalesce(f.proallargtypes, f.proargtypes::oid[])) with ordinality as a (type, place)
    ), type as (
        select t.oid as type, t.oid as base from pg_type t
        where t.oid in (select type from argument union select prorettype from function)
        union all
        select type.type, t.typbasetype from type join pg_type t on t.oid = type.base where t.typtype = 'd'
    ), form as (
        select type.type, format_type(type.type, null) as text, t.typtype as kind,
            case
                when t.typtype = 'p' then 'pseudo'
                when t.oid in ('json'::regtype, 'jsonb'::regtype) then 'json'
                when t.oid = 'bool'::regtype then 'boolean'
                when t.oid in ('int2'::regtype, 'int4'::regtype) then 'integer'
                when t.oid = 'int8'::regtype then 'bigint'
                when t.oid in ('float4'::regtype, 'float8'::regtype, 'numeric'::regtype) then 'number'
                when t.typcategory = 'A' then 'array'
                when t.typtype = 'c' then 'composite'
                else 'text'
            end as form,
            t.oid::regtype::text as base
        from type join pg_type t on t.oid = type.base where t.typtype <> 'd'
    )
    select coalesce(jsonb_agg(jsonb_build_object(
        'schema', f.nspname, 'name', f.proname, 'set', f.proretset, 'volatile', f.provolatile = 'v',
        'comment', coalesce(obj_description(f.oid, 'pg_proc'), ''),
        'returns', jsonb_build_object('type', r.text, 'form', r.form, 'base', r.base),
        'outputs', (select count(*) from argument a where a.oid = f.oid and a.mode in ('o', 'b', 't')),
        'roles', to_jsonb(array(
            select role.rolname from pg_roles role
            where role.rolname in ('anon', 'member', 'service')
                and has_function_privilege(role.oid, f.oid, 'execute')
                and has_schema_privilege(role.oid, f.pronamespace, 'usage')
            order by 1)),
        'parameters', coalesce((
            select jsonb_agg(jsonb_build_object(
                'name', a.name, 'type', m.text, 'form', m.form, 'base', m.base, 'variadic', a.mode = 'v',
                'optional', a.number > f.pronargs - f.pronargdefaults) order by a.number)
            from (
                select *, row_number() over (order by place) as number from argument
                where argument.oid = f.oid and mode in ('i', 'b', 'v')
            ) a join form m using (type)), '[]')
    ) order by f.nspname, f.proname, f.oid), '[]')
    from function f join form r on r.type = f.prorettype
$$;
comment on function lastcall.signatures(text[]) is
    'The functions of these schemas as the gateway sees them: arguments, defaults, results, comments, and who may call.';
grant execute on function lastcall.signatures(text[]) to lastcall_authenticator;
