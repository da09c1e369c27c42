-- Check whose state this is and read the fence. Writes nothing.
--
-- ARGV[1..4]  see common.lua
--
-- Returns: term and holder of the fence; 0 and empty: none
return { string.format('%.0f', term), holder }
