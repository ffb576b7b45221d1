-- Counts a call against every limit, or against none: the arithmetic of limits.py, on the clock of Redis.
-- KEYS: the state of each limit.
-- ARGV: the burst in seconds, images, the call's id, its lease in seconds; then the resource and amount of each limit.
-- Gives 0 where the call is let in; else the number of the limit it waits longest for, and that wait in seconds.
local DAY_S, PLACE_RETRY_S, TOLERANCE_S = 86400, 1, 0.000001
local burst_s, images, call, lease_s = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local midnight = (math.floor(now / DAY_S) + 1) * DAY_S

local function limit(number)
  return ARGV[3 + 2 * number], tonumber(ARGV[4 + 2 * number])
end

local longest, refused_by = TOLERANCE_S, 0
local paid_at = {}
for number, key in ipairs(KEYS) do
  local resource, amount = limit(number)
  local wait = 0
  if resource == 'requests' or resource == 'images' then
    local cost = resource == 'images' and images or 1
    local size = math.max(1, amount * burst_s)
    local taken = math.max(tonumber(redis.call('GET', key) or now), now)
    wait = (math.min(cost, size) - (size - (taken - now) * amount)) / amount
    paid_at[number] = taken + cost / amount
  elseif resource == 'images-today' then
    if tonumber(redis.call('GET', key) or 0) + images > amount then
      wait = midnight - now
    end
  elseif resource == 'in-flight' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if redis.call('ZCARD', key) >= amount then
      wait = PLACE_RETRY_S
    end
  end
  if wait > longest then
    longest, refused_by = wait, number
  end
end
if refused_by > 0 then
  return {refused_by, string.format('%.6f', longest)}
end

for number, key in ipairs(KEYS) do
  local resource = limit(number)
  if paid_at[number] then
    redis.call('SET', key, string.format('%.6f', paid_at[number]), 'PX', math.ceil((paid_at[number] - now) * 1000))
  elseif resource == 'images-today' then
    redis.call('INCRBY', key, images)
    redis.call('EXPIREAT', key, midnight)
  elseif resource == 'in-flight' then
    redis.call('ZADD', key, now + lease_s, call)
    if redis.call('TTL', key) <= lease_s then
      redis.call('EXPIRE', key, math.ceil(lease_s) + 1)
    end
  end
end
return {0, '0'}
