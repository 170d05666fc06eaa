-- The period in which usage of this moment is counted, and all of it.
local period = landing(month_of(now))
return { period, snapshot(period) }
