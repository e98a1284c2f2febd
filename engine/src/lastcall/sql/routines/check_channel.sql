create or replace function lastcall.check_channel(channel text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if check_channel.channel is null or check_channel.channel !~ '^[a-z][a-z_]{0,30}:[A-Za-z0-9_-]{1,64}$' then
        raise exception 'a channel is named kind:id' using errcode = 'LC401';
    end if;
end
$$;
comment on function lastcall.check_channel(text) is 'Raise LC401 unless this names a channel.';
