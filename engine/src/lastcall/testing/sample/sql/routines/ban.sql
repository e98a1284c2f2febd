create or replace function sample_api.ban(subject text, topic text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into sample.banned (subject, topic) values (ban.subject, ban.topic) on conflict do nothing;
    perform lastcall.revoke(ban.subject, 'topic:' || ban.topic);
end
$$;
comment on function sample_api.ban(text, text) is 'From this commit on the subject does not hear the topic.';
grant execute on function sample_api.ban(text, text) to service;
