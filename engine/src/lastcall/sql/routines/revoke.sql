-- after: emit, check_channel
create or replace function lastcall.revoke(subject text, channel text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform lastcall.check_channel(revoke.channel);
    if revoke.subject is null or length(revoke.subject) not between 1 and 255 then
        raise exception 'a subject has 1 to 255 characters' using errcode = 'LC108';
    end if;
    perform lastcall.emit('lastcall.revoke', jsonb_build_object('subject', revoke.subject, 'channel', revoke.channel));
end
$$;
comment on function lastcall.revoke(text, text) is
    'From this commit on, the subject''s connections no longer hear the channel.';
grant execute on function lastcall.revoke(text, text) to service;
