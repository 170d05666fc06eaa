-- Read a period without a lease. ARGV[3]: period.
return snapshot(ARGV[3])
