-- A period as it stands, without a lease. ARGV[3]: period.
return snapshot(ARGV[3])
