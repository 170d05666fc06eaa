-- Totals and what of them names a value, in one picture. ARGV[3]: period, [4]: dimension.
return {
    redis.call('HGETALL', part(ARGV[3], 'totals')),
    redis.call('HGETALL', part(ARGV[3], ARGV[4])),
}
