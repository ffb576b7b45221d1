-- The number of the current load: kept where there is one and no news, else a new one.
-- KEYS: where it is. ARGV: a new number, whether there are news (1 or 0), its life in ms.
local known = redis.pcall('GET', KEYS[1])
if ARGV[2] == '1' or type(known) ~= 'string' or #known ~= #ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
  return ARGV[1]
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return known
