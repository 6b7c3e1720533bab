package images

import "github.com/fedlab-dev/fedlab/lab/images/store"

// Store keeps what was made.
type Store = store.Store

// OpenStore returns the store in root, or, where root is empty, in the user's
// cache folder. It refuses a folder in which other users may write.
func OpenStore(root string) (*Store, error) { return store.Open(root) }
