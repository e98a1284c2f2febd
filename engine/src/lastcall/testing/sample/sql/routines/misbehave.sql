create or replace function sample_api.misbehave(how text) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    case misbehave.how
        when 'refuse' then
            raise exception using errcode = 'SA001', message = 'refused', detail = '{"asked": true}';
        when 'rule' then raise exception 'a rule of the application';
        when 'serialization' then raise exception using errcode = '40001', message = 'could not serialize';
        when 'divide' then return (1 / 0)::text;
        when 'secret' then raise exception using errcode = 'XX000', message = 'the secret is hunter2';
        when 'sleep' then perform pg_sleep(30);
        when 'large' then return repeat('x', 100000);
        else return 'behaved';
    end case;
    return 'slept';
end
$$;
comment on function sample_api.misbehave(text) is 'Fail in the way that is asked for: refuse, rule, serialization, divide, secret, sleep, large.';
grant execute on function sample_api.misbehave(text) to member, service;
