-- Establish a shard's epoch: a server other than the recorded one begins a new epoch.
-- KEYS[1]: the shard's epoch. ARGV: time in ms or empty, nonce, 'always' to begin a new one in any case.
-- The identity is the process (run_id) and the history it continues (master_replid): a restart, a
-- failover and a restored backup each change one of them. Answers the epoch.
local now = tonumber(ARGV[1]) or now_ms()
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
    .. ' ' .. string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local epoch, known = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'server'))
if known == server and ARGV[3] ~= 'always' then
    return epoch
end
local n = epoch and tonumber(string.match(epoch, '^%d+')) + 1 or 1
epoch = string.format('%.0f:%s', n, ARGV[2])
-- Before the first epoch there is no usage that producers would have to resend.
redis.call('HSET', KEYS[1], 'epoch', epoch, 'server', server, 'since_ms', n > 1 and now or 0)
return epoch
