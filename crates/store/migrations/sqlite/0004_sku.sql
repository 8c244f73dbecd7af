-- Our own API gives a sku to one product of a merchant only, and looks for it here. Not unique: a catalogue written by SQL may do as it likes.
CREATE INDEX product_by_sku ON product (merchant_id, sku);
