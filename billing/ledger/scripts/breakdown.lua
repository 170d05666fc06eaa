-- Read totals and their parts by value of a dimension, in one step. ARGV[3]: period, [4]: dimension.
return {
    redis.call('HGETALL', part(ARGV[3], 'totals')),
    redis.call('HGETALL', part(ARGV[3], ARGV[4])),
}
