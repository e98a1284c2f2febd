-- Roles, and what only a superuser can give. `lastcall migrate` runs it; where its login is no superuser, a superuser runs
-- it once, in the database that lastcall is to use, after naming the owner:
--
--     select set_config('lastcall.owner', 'name_of_the_owner', false);
--
-- It may be run again at any time. Whoever may do less than a superuser does what he may; `lastcall migrate` and `lastcall
-- doctor` say what is missing then.

do $$
declare
    owner text := coalesce(nullif(current_setting('lastcall.owner', true), ''), current_user);
    superuser boolean := (select rolsuper from pg_catalog.pg_roles where rolname = current_user);
    modern boolean := current_setting('server_version_num')::integer >= 160000;
    wanted record;
    emit regprocedure;
begin
    if not exists (select from pg_catalog.pg_roles where rolname = owner) then
        raise exception 'there is no role % to own lastcall', owner using errcode = 'undefined_object';
    end if;
    if superuser then
        -- Two databases of one cluster may get here at the same moment; roles belong to the cluster, advisory locks do not.
        lock table pg_catalog.pg_authid in share row exclusive mode;
    end if;

    for wanted in
        select * from (values
            ('anon', 'nologin'),
            ('member', 'nologin'),
            ('service', 'nologin'),
            ('lastcall_authenticator', 'login noinherit'),
            ('lastcall_replication', 'login noinherit replication')
        ) as role (name, attributes)
        where not exists (select from pg_catalog.pg_roles r where r.rolname = role.name)
    loop
        begin
            execute pg_catalog.format('create role %I %s', wanted.name, wanted.attributes);
        exception when insufficient_privilege or duplicate_object or unique_violation then
            raise notice 'the role % was not made: %', wanted.name, sqlerrm;
        end;
    end loop;

    begin
        execute 'grant anon, member, service to lastcall_authenticator'
            || case when modern then ' with inherit false, set true' else '' end;
    exception when insufficient_privilege or undefined_object then
        raise notice 'lastcall_authenticator was not made a member: %', sqlerrm;
    end;

    begin
        execute pg_catalog.format('grant create, connect on database %I to %I', pg_catalog.current_database(), owner);
    exception when insufficient_privilege then
        raise notice 'the owner was not given the database: %', sqlerrm;
    end;

    if not superuser then
        return;
    end if;

    -- Who emits a message of ours writes an event. Only the owner's functions may, and they check what they emit.
    for emit in
        select oid::regprocedure from pg_catalog.pg_proc
        where proname = 'pg_logical_emit_message' and pronamespace = 'pg_catalog'::regnamespace
    loop
        execute pg_catalog.format('revoke all on function %s from public', emit);
        execute pg_catalog.format('grant execute on function %s to %I', emit, owner);
    end loop;

    -- A data folder that was restored from a copy is known by the age of its files (lastcall.cluster_birth).
    execute pg_catalog.format('grant execute on function pg_catalog.pg_stat_file(text) to %I', owner);

    -- `migrate` gives both logins their passwords. From PostgreSQL 16 on this takes CREATEROLE, which reaches no further
    -- than the roles one has the admin option for, and REPLICATION to alter a role that has it. Before 16 CREATEROLE reaches
    -- every role and yet not this one, so there a superuser sets the passwords.
    if modern and not (select rolsuper from pg_catalog.pg_roles where rolname = owner) then
        execute pg_catalog.format('alter role %I createrole replication', owner);
        execute pg_catalog.format(
            'grant lastcall_authenticator, lastcall_replication to %I with admin true, inherit false, set false', owner);
    end if;
end
$$;
