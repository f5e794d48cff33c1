package collect

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// file is an open file of procfs or sysfs, read by bare system calls: os.File
// would set each one up for polling, which for files this small takes longer
// than to read them.
type file struct {
	fd   int
	name string
}

func open(name string) (file, error) {
	for {
		fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return file{}, &os.PathError{Op: "open", Path: name, Err: err}
		default:
			return file{fd, name}, nil
		}
	}
}

func (f file) close() { _ = syscall.Close(f.fd) } // opened for reading: nothing can be lost

// Read is io.Reader's.
func (f file) Read(b []byte) (int, error) {
	for {
		n, err := syscall.Read(f.fd, b)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, &os.PathError{Op: "read", Path: f.name, Err: err}
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// readFile returns a whole file.
func readFile(name string) (string, error) {
	f, err := open(name)
	if err != nil {
		return "", err
	}
	defer f.close()
	b, err := io.ReadAll(f)
	return string(b), err
}
