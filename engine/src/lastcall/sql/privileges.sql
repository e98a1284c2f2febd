-- What only a superuser can give. `lastcall migrate` runs it where its login is one; elsewhere a superuser runs it once,
-- in the database that lastcall is to use, after naming the owner:
--
--     SELECT set_config('lastcall.owner', 'name_of_the_owner', false);
--
-- It may be run again at any time.

DO $$
DECLARE
    owner text := coalesce(nullif(current_setting('lastcall.owner', true), ''), current_user);
    emit regprocedure;
    modern boolean := current_setting('server_version_num')::int >= 160000;
    wanted record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = owner) THEN
        RAISE EXCEPTION 'there is no role % to own lastcall', owner USING ERRCODE = 'undefined_object';
    END IF;

    -- Two databases of one cluster may get here at the same moment; roles belong to the cluster, advisory locks do not.
    LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE;

    FOR wanted IN
        SELECT * FROM (VALUES
            ('anon', 'NOLOGIN'),
            ('member', 'NOLOGIN'),
            ('service', 'NOLOGIN'),
            ('lastcall_authenticator', 'LOGIN NOINHERIT'),
            ('lastcall_replication', 'LOGIN NOINHERIT REPLICATION')
        ) AS role (name, attributes)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted.name) THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I %s', wanted.name, wanted.attributes);
        END IF;
    END LOOP;

    EXECUTE 'GRANT anon, member, service TO lastcall_authenticator'
        || CASE WHEN modern THEN ' WITH INHERIT FALSE, SET TRUE' ELSE '' END;

    -- Who emits a message of ours writes an event. Only the owner's functions may, and they check what they emit.
    FOR emit IN
        SELECT oid::regprocedure FROM pg_catalog.pg_proc
        WHERE proname = 'pg_logical_emit_message' AND pronamespace = 'pg_catalog'::regnamespace
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', emit);
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I', emit, owner);
    END LOOP;

    EXECUTE pg_catalog.format('GRANT CREATE, CONNECT ON DATABASE %I TO %I', pg_catalog.current_database(), owner);

    IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = owner) THEN
        -- `migrate` gives both logins their passwords.
        EXECUTE pg_catalog.format('GRANT lastcall_authenticator, lastcall_replication TO %I', owner)
            || CASE WHEN modern THEN ' WITH ADMIN TRUE, INHERIT FALSE, SET FALSE' ELSE ' WITH ADMIN OPTION' END;
    END IF;
END
$$;
