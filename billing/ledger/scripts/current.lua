-- The period in which usage of this moment is counted, and all of it.
local period = current_period()
return { period, snapshot(period) }
