-- The numbers of one producer, in the hash KEYS[1].
--
--   e       its epoch, 16 hexadecimal digits
--   g       the generation of what is known (how often the window was flushed)
--   t       one more than the highest number that was let through, 16 hexadecimal digits
--   ttl     for how long it is remembered from its last publish on, in milliseconds
--   f, l    the first chunk of 1,024 numbers of which something is known, and the last one
--   n       the chunks between them that are not full, as ",5,7,": each has its bits in the field c5, c7
--   x       when leases that have ended are looked for, in milliseconds
--   L...    the lease of a number in flight: epoch and number, each 16 digits; its value: end, keep (16 digits each), and the lease
--
-- A chunk between f and l that has no bits is full: all of its numbers are stored. Nothing is known of the chunks before f. There are
-- at most CHUNKS that are not full: of more, the lowest one is forgotten, and all before it. Its numbers pass again, and nothing is lost.
--
-- ARGV: what, epoch, number, the number after it, chunk, place in the chunk, generation; and more, as each of them says.
local CHUNKS, LEASES = 17, 8192
local key, what, epoch, number, after = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local chunk, place, generation = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local lease = 'L' .. epoch .. number
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- What every call looks at is read at once.
local read = {e = false, g = false, t = false, ttl = false, f = false, l = false, n = false, x = false}
local names = {'e', 'g', 't', 'ttl', 'f', 'l', 'n', 'x'}
for at, value in ipairs(redis.call('HMGET', key, unpack(names))) do read[names[at]] = value end

local function get(field)
  local value = read[field]
  if value ~= nil then return value end
  return redis.call('HGET', key, field)
end
local function set(field, value)
  if read[field] ~= nil then read[field] = value end
  redis.call('HSET', key, field, value)
end
local function remove(...)
  for _, field in ipairs({...}) do if read[field] ~= nil then read[field] = false end end
  redis.call('HDEL', key, ...)
end
local function text(count) return string.format('%.0f', count) end

local function partial()
  local list = {}
  for each in string.gmatch(get('n') or '', '[^,]+') do list[#list + 1] = tonumber(each) end
  return list
end

-- Sets the list of chunks that are not full, and drops the lowest of too many.
local function keep(list)
  table.sort(list)
  while #list > CHUNKS do
    local lowest = table.remove(list, 1)
    remove('c' .. text(lowest))
    set('f', text(lowest + 1))
  end
  local texts = {}
  for at, each in ipairs(list) do texts[at] = text(each) end
  set('n', ',' .. table.concat(texts, ',') .. ',')
end

-- Forgets the numbers. What is in flight stays.
local function clear()
  for _, each in ipairs(partial()) do remove('c' .. text(each)) end
  remove('f', 'l', 'n', 't')
end

-- Begins a higher epoch. Returns false if this one is over.
local function begin()
  local known = get('e')
  if known and known > epoch then return false end
  if known ~= epoch then
    if known then clear() end
    set('e', epoch)
  end
  return true
end

local function is_stored()
  local first, last = tonumber(get('f') or ''), tonumber(get('l') or '')
  if not first or chunk < first or chunk > last then return false end
  local bits = get('c' .. text(chunk))
  if not bits then return true end
  return bit.band(string.byte(bits, math.floor(place / 8) + 1), bit.lshift(1, place % 8)) ~= 0
end

-- Writes the bit of the number.
local function mark(bits, stored)
  local at, mask = math.floor(place / 8) + 1, bit.lshift(1, place % 8)
  local byte = string.byte(bits, at)
  byte = stored and bit.bor(byte, mask) or bit.band(byte, bit.bnot(mask))
  return string.sub(bits, 1, at - 1) .. string.char(byte) .. string.sub(bits, at + 1)
end

local EMPTY, FULL = string.rep('\0', 128), string.rep('\255', 128)

-- Makes the chunk one of those that are known. Returns false if it lies too far below them.
local function reach()
  local first, last = tonumber(get('f') or ''), tonumber(get('l') or '')
  local from, to = chunk, chunk
  if first and chunk > last and chunk - last <= CHUNKS then
    from, first = last + 1, first
  elseif first and chunk < first and first - chunk <= CHUNKS then
    to, first = first - 1, chunk
  elseif first and chunk < first then
    return false
  elseif first and chunk <= last then
    return true
  else
    local top = get('t')
    clear()
    if top then set('t', top) end
    first = chunk
  end
  local list = partial()
  for each = from, to do
    set('c' .. text(each), EMPTY)
    list[#list + 1] = each
  end
  set('f', text(first))
  set('l', text(math.max(last or chunk, chunk)))
  keep(list)
  return chunk >= tonumber(get('f'))
end

local function store()
  if not reach() then return end
  local bits = get('c' .. text(chunk))
  if not bits then return end
  bits = mark(bits, true)
  if bits ~= FULL then return set('c' .. text(chunk), bits) end
  remove('c' .. text(chunk))
  local list = {}
  for _, each in ipairs(partial()) do if each ~= chunk then list[#list + 1] = each end end
  keep(list)
end

local function unstore()
  if not is_stored() then return end
  local bits, list = get('c' .. text(chunk)), partial()
  if not bits then list[#list + 1] = chunk end
  set('c' .. text(chunk), mark(bits or FULL, false))
  keep(list)
end

-- Lets the producer live for this time at least.
local lives
local function live(time)
  if time <= 0 then return end
  lives = lives or redis.call('PTTL', key)
  if lives < time then
    redis.call('PEXPIRE', key, text(time))
    lives = time
  end
end

local function let_through()
  local top = get('t')
  if not top or after > top then set('t', after) end
end

local function put(value, life, kept)
  set(lease, string.format('%016.0f%016.0f', now + life, kept) .. value)
  live(math.max(life + kept, tonumber(get('ttl') or '0')))
end

-- Returns the end, the time that the number counts as stored after it, and the value of a lease; nothing if it is not there.
local function look(field)
  local held = get(field)
  if held then return tonumber(string.sub(held, 1, 16)), tonumber(string.sub(held, 17, 32)), string.sub(held, 33) end
end

-- Removes the leases that have ended, sometimes. Those that count as stored stay until somebody asks.
local function sweep(life)
  if now < tonumber(get('x') or '0') then return end
  set('x', text(now + life))
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, 1) == 'L' then
      local ends, kept = look(field)
      if now > ends + kept then redis.call('HDEL', key, field) end
    end
  end
end

-- The lease of a number has ended. Returns true if it counts as stored.
local function ended(ends, kept)
  if now <= ends then return false end
  if kept > 0 and now <= ends + kept then
    store()
    set('ttl', text(kept))
    live(ends + kept - now)
    redis.call('HDEL', key, lease)
    return true
  end
  return false
end

local known = get('g')
-- What only takes something away has nothing to do here.
if not known and what ~= 'R' and what ~= 'W' and what ~= 'C' and what ~= 'T' then return 0 end
if known and tonumber(known) < tonumber(generation) then
  clear()
  remove('e', 'ttl')
end
if not known or tonumber(known) < tonumber(generation) then set('g', generation) end

-- R: a lease. More: its value, its life, keep, the value that it may replace, and whether gaps are refused.
-- W: the same for a lease that is held.
if what == 'R' or what == 'W' then
  local value, life, kept, from = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
  live(life)
  if not begin() then
    if what == 'W' then return {'F', 0} end
    return {'S'}
  end
  sweep(life)
  if is_stored() then
    live(tonumber(get('ttl') or '0'))
    return {'D', redis.call('PTTL', key)}
  end
  local ends, kept_by, have = look(lease)
  if ends and have ~= value and have ~= from then
    if ended(ends, kept_by) then return {'D', redis.call('PTTL', key)} end
    if now <= ends then return {'L', have} end
  end
  if not ends and redis.call('HLEN', key) > LEASES then return {'L', ''} end
  local top = get('t')
  local gap = top and number > top
  if gap and what == 'R' and ARGV[12] == '1' then return {'G'} end
  put(value, life, kept)
  let_through()
  return {'F', gap and 1 or 0}
end

-- X: gives a lease back. More: its value.
if what == 'X' then
  local _, _, have = look(lease)
  if have == ARGV[8] then redis.call('HDEL', key, lease) end
  return 0
end

-- C: a number is stored. T: a number was stored before, and its producer lives. More: for how long the producer is remembered from now.
-- K: it was stored so long ago that it is not remembered. More: the beginning of the lease that it would have replaced.
if what == 'K' then
  local _, _, have = look(lease)
  if have and string.sub(have, 1, #ARGV[8]) == ARGV[8] then redis.call('HDEL', key, lease) end
  return 0
end
if what == 'C' or what == 'T' then
  if what == 'C' then redis.call('HDEL', key, lease) end
  live(tonumber(ARGV[8]))
  -- (It was stored before a flush, of which its relay has not heard.)
  local is_flushed = known and tonumber(known) > tonumber(generation)
  if not is_flushed and begin() then
    store()
    let_through()
    set('ttl', ARGV[8])
  end
  return 0
end

-- U: a number is not stored after all.
if what == 'U' then
  if get('e') == epoch then unstore() end
  return 0
end

-- P: nothing is known of the producer any more.
clear()
remove('e', 'ttl')
return 0
