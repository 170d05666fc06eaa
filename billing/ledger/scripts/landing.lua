-- The period in which usage of this moment is counted.
return landing(month_of(now))
