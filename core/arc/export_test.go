package arc

// SetColumns lets the fields that s makes be folded at another place.
func (s *Sealer) SetColumns(n int) { s.columns = n }

// ReadResults lets the fuzzer at the reader of a field.
var ReadResults = readResults
