/* An object in the extension's own data, the only one of its type. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

typedef struct {
    PyObject_HEAD
} Single;

static PyTypeObject type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "singleton.Single",
    .tp_basicsize = sizeof(Single),
    .tp_flags = Py_TPFLAGS_DEFAULT,
};

static Single single = {PyObject_HEAD_INIT(&type)};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "singleton", NULL, -1, NULL};

PyMODINIT_FUNC PyInit_singleton(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && PyType_Ready(&type) == 0) {
        Py_INCREF((PyObject *)&single);
        PyModule_AddObject(module, "single", (PyObject *)&single);
    }
    return module;
}
