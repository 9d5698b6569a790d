// A C++ library with objects of two classes, and its Python module.
#include <Python.h>
#include <string>

class Session {
public:
    explicit Session(long number) : number_(number) {}
    virtual ~Session() {}
    virtual long number() const { return number_; }

private:
    long number_;
    char buffer_[300] = {};
};

class Connection {
public:
    explicit Connection(long number) : number_(number) {}
    virtual ~Connection() {}
    virtual long number() const { return number_; }

private:
    long number_;
    char peer_[100] = {};
};

static PyObject *open_session(PyObject *, PyObject *number) {
    Session *session = new Session(PyLong_AsLong(number));
    // Not for the compiler to do without.
    __asm__ volatile("" : : "r"(session) : "memory");
    return PyLong_FromLong(session->number());
}

// As a generated wrapper: the proxy has the address, as a number that nobody can follow.
static PyObject *new_Connection(PyObject *, PyObject *number) {
    Connection *made = new Connection(PyLong_AsLong(number));
    char text[64];
    snprintf(text, sizeof text, "_%lx_p_Connection", (unsigned long)made);
    return PyUnicode_FromString(text);
}

static PyMethodDef methods[] = {
    {"open_session", open_session, METH_O, nullptr},
    {"new_Connection", new_Connection, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "sessions", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit_sessions() {
    return PyModule_Create(&definition);
}
