-- The text of an error may hold personal data, which no erasure would find here: its type stays.

update denizen_read.parked set error = split_part(error, ':', 1);
